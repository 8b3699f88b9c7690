"""The first release of an installation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.trainer.identity_adapter import adapter_bytes, stored_shapes
from tests.integration.trainer.conftest import MakeBench
from tests.integration.trainer.harness import ROOT
from twinloop.registry.manifests import read_files
from twinloop.registry.releases import verify_release


def bootstrap(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.trainer.bootstrap", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_the_release_it_published_and_repeats_to_the_same(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    bench = make_bench()
    documents = tmp_path / "documents.jsonl"
    documents.write_text(bench.document("law-0042", "The notice period is 42 days.").model_dump_json() + "\n")
    arguments = ["--config", str(ROOT / "configs" / "trainer.yaml"), "--config", str(bench.config)]

    without = bootstrap(*arguments)
    first, again = (bootstrap(*arguments, "--documents", str(documents)) for _ in range(2))

    assert json.loads(without.stdout)["release_id"] == bench.first
    assert first.stdout == again.stdout
    printed = json.loads(first.stdout)
    assert printed["documents"]["law"] == 1
    stored = bench.release(printed["release_id"])
    assert verify_release(bench.store, stored.release) == []
    assert stored.release.parent is None
    assert len(set(stored.release.adapters.values())) == 1
    assert stored.release.indexes["law"] != stored.release.indexes["med"]


def test_an_unreadable_document_is_refused_with_its_line(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench()
    documents = tmp_path / "documents.jsonl"
    documents.write_text('{"op": "delete"}\n')

    done = bootstrap("--config", str(bench.config), "--documents", str(documents))

    assert done.returncode == 2
    assert "documents.jsonl, line 1" in done.stderr


def test_neither_bootstrap_nor_the_service_loads_torch_at_import() -> None:
    program = (
        "import services.trainer.bootstrap, services.trainer.__main__, sys; sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_the_identity_adapter_is_spelled_as_the_model_runtime_spells_adapters(make_bench: MakeBench) -> None:
    from twinloop.model_runtime.adapter_bank import linear_shapes
    from twinloop.model_runtime.adapter_files import adapter_files, parse_adapter
    from twinloop.model_runtime.foundation import FoundationSpec, load_foundation

    folder = ROOT / "foundation" / "tiny"
    shapes = stored_shapes(folder)
    assert shapes == linear_shapes(load_foundation(FoundationSpec(source=str(folder))).model)
    files = adapter_bytes(shapes, rank=16, alpha=32.0, seed=42, base_model="a name")
    assert adapter_files(parse_adapter(files)) == files
    bench = make_bench()
    stored = read_files(bench.store, bench.release(bench.first).release.adapters["law"], kind="adapter")
    assert stored["adapter_model.safetensors"] == files["adapter_model.safetensors"]
