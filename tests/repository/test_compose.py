"""The container files against the program: every name, path, port and secret in them is one that exists.

No Docker engine is needed: what `docker compose config` would check is checked here by hand, and more.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.api.settings import ApiSettings
from services.gatekeeper.settings import GatekeeperSettings
from services.router.settings import RouterSettings
from tests.repository.setting_names import SETTINGS, is_setting, resolves
from twinloop.errors import ConfigError
from twinloop.settings_loader import ServiceSettings, load_settings
from twinloop.signing import create_keys, load_signer
from twinloop.stack.installation import KEYS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
OURS = {name: entry for name, entry in SERVICES.items() if str(entry["image"]).startswith("twinloop:")}
ONE_SHOTS = {name for name, entry in SERVICES.items() if entry.get("restart") == "no"}
PROFILES = {
    "obs": {"prometheus", "grafana", "otel-collector"},
    "chaos": {"toxiproxy"},
    "gpu": {"inference-blue-gpu", "inference-green-gpu"},
}
WITHOUT_SHELL = {"otel-collector"}
"""Images with nothing in them that could ask their process whether it is healthy."""
KEYS_FOLDER = "/var/lib/twinloop/keys"
each_service = pytest.mark.parametrize("name", sorted(SERVICES))
each_of_ours = pytest.mark.parametrize("name", sorted(OURS))


def words(name: str) -> list[str]:
    command = SERVICES[name]["command"]
    return shlex.split(command) if isinstance(command, str) else list(command)


def settings_of(name: str) -> type[ServiceSettings]:
    """The settings class of the process a compose service runs."""
    modules = [word.removeprefix("services.") for word in words(name) if word.startswith("services.")]
    return SETTINGS[modules[0]] if modules else ServiceSettings


def config_files(name: str) -> list[str]:
    line = words(name)
    return [line[place + 1] for place, word in enumerate(line) if word == "--config"]


def strings_in(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in strings_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings_in(each)]
    return [value] if isinstance(value, str) else []


@each_service
def test_it_has_an_image_and_our_own_are_built_from_a_target_that_exists(name: str) -> None:
    entry = SERVICES[name]
    assert entry["image"]
    if name in OURS:
        stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
        assert entry["build"]["target"] in stages
        assert entry["image"] == f"twinloop:{entry['build']['target']}"


@each_service
def test_it_restarts_and_says_whether_it_is_healthy_or_ends_by_itself(name: str) -> None:
    entry = SERVICES[name]
    if name in ONE_SHOTS:
        assert entry.get("healthcheck", {"disable": True}) == {"disable": True}
        return
    assert entry["restart"] == "unless-stopped"
    if name in WITHOUT_SHELL:
        assert "healthcheck" not in entry
        return
    check = entry["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries"} <= set(check)


@each_service
def test_what_it_waits_for_exists_and_can_reach_that_state(name: str) -> None:
    for target, entry in SERVICES[name].get("depends_on", {}).items():
        assert target in SERVICES.keys() - WITHOUT_SHELL
        wanted = "service_completed_successfully" if target in ONE_SHOTS else "service_healthy"
        assert entry["condition"] == wanted, f"{name} waits for {target}"


def test_nobody_waits_in_a_circle() -> None:
    waits = {name: set(entry.get("depends_on", {})) for name, entry in SERVICES.items()}
    while waits:
        free = {name for name, targets in waits.items() if not targets & set(waits)}
        assert free, f"these wait for each other: {sorted(waits)}"
        waits = {name: targets for name, targets in waits.items() if name not in free}


def test_ports_are_open_on_this_machine_only_and_each_once() -> None:
    published = [port for entry in SERVICES.values() for port in entry.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    hosts = [port.split(":")[1] for port in published]
    assert len(hosts) == len(set(hosts))


@each_of_ours
def test_a_published_port_is_the_one_its_process_listens_on(name: str) -> None:
    telemetry = yaml.safe_load((ROOT / "configs/profiles/compose.yaml").read_text())["telemetry"]
    inside = {int(port.split(":")[2]) for port in SERVICES[name].get("ports", [])}
    served = (
        {telemetry["port"], ApiSettings.model_fields["api"].default.port}
        if name == "api"
        else {telemetry["port"]}
    )
    assert inside <= served
    assert telemetry["host"] == "0.0.0.0"
    if name not in ONE_SHOTS:
        assert f"127.0.0.1:{telemetry['port']}/readyz" in SERVICES[name]["healthcheck"]["test"][-1]


def test_images_of_others_are_pinned() -> None:
    images = [str(entry["image"]) for name, entry in SERVICES.items() if name not in OURS]
    images += [image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) if ":" in image]
    assert len(images) >= 8
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+\b|:\d+\.\d+\.\d+|@sha256:", image), f"{image} is not pinned"


@each_of_ours
def test_every_environment_name_is_a_setting_of_that_service(name: str) -> None:
    for variable in SERVICES[name].get("environment", {}):
        if variable.startswith("TWINLOOP_"):
            assert is_setting(variable, settings_of(name)), f"{name}: {variable} is no setting"


def test_a_misspelt_environment_name_would_be_noticed() -> None:
    assert resolves(RouterSettings, ["redis", "password"])
    assert resolves(GatekeeperSettings, ["gatekeeper", "policy", "ramp", "min_step_s"])
    assert not resolves(RouterSettings, ["redis", "passwort"])
    assert not resolves(RouterSettings, ["inference", "slot"])


@each_of_ours
def test_every_config_file_is_in_the_image_or_written_by_init(name: str) -> None:
    init = words("init")
    written = init[init.index("--output") + 1]
    assert re.search(r"^COPY configs configs$", DOCKERFILE, re.MULTILINE)
    for file in config_files(name):
        if file.startswith("/"):
            assert file == written
            assert "keys" in SERVICES[name]["depends_on"]
            assert "init" in SERVICES["keys"]["depends_on"]
        else:
            assert (ROOT / file).is_file()
            assert file.startswith("configs/")


@each_of_ours
def test_what_its_settings_read_from_the_working_folder_is_in_the_image(name: str) -> None:
    stage = DOCKERFILE.split(f" AS {SERVICES[name]['build']['target']}\n")[1].split("\nFROM ")[0]
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE.split("\nFROM base AS lean")[0] + stage, re.M))
    files = [ROOT / file for file in config_files(name) if not file.startswith("/")]
    named = [text for file in files for text in strings_in(yaml.safe_load(file.read_text(encoding="utf-8")))]
    for text in named:
        if re.fullmatch(r"(configs|foundation)/[\w./-]+", text):
            assert (ROOT / text).exists(), text
            assert text.split("/")[0] in copied, f"{name} needs {text}"


def test_no_secret_has_a_default() -> None:
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    secrets = [(name, rest) for name, rest in asked if re.search(r"KEY|PASSWORD|SECRET|TOKEN", name)]
    assert secrets
    assert all(rest.startswith(":?") for _, rest in secrets)
    for entry in SERVICES.values():
        for name, value in entry.get("environment", {}).items():
            if re.search(r"KEY|PASSWORD|SECRET|AUTH", name) and not name.startswith("GF_AUTH_"):
                assert re.match(r"\$\{\w+:\?", str(value)), f"{name} is written out"


def test_the_example_of_env_names_every_variable_and_fills_in_none() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    assert {line.split("=", 1)[0] for line in lines} == asked
    assert all(line.endswith("=") for line in lines)


def test_every_volume_is_declared_and_belongs_to_the_user_of_the_image() -> None:
    """A named volume takes its owner from the image's folder; where there is none, root owns it."""
    for entry in SERVICES.values():
        for mount in entry.get("volumes", []):
            volume, folder = mount.split(":")[:2]
            if volume.startswith("./"):
                assert (ROOT / volume).is_dir(), volume
                assert mount.endswith(":ro")
                continue
            assert volume in COMPOSE["volumes"]
            if entry["image"].startswith("twinloop:"):
                made = re.search(r"install -d -o twinloop .*", DOCKERFILE.replace("\\\n", " "))
                assert made is not None
                assert folder in made[0].split(), f"{folder} is not made in the image"


def test_images_do_not_run_as_root_and_carry_no_registry() -> None:
    for stage in DOCKERFILE.split("\nFROM base AS ")[1:]:
        assert "\nUSER twinloop\n" in stage
    assert "://" not in DOCKERFILE


def with_compose(service: str) -> ServiceSettings:
    files = [ROOT / f"configs/{service}.yaml", ROOT / "configs/profiles/compose.yaml"]
    return load_settings(SETTINGS[service], *files)


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_each_service_s_configuration_loads_with_the_compose_profile(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINLOOP_REDIS__PASSWORD", "a word")
    settings = with_compose(service)
    assert settings.kafka.bootstrap_servers.split(":")[0] in SERVICES
    assert re.search(r"//([\w-]+):", settings.redis.url)[1] in SERVICES  # type: ignore[index]
    assert settings.redis.password is not None
    assert settings.store.endpoint is not None


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_each_service_s_configuration_loads_with_the_kafka_profile(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [ROOT / f"configs/{service}.yaml", ROOT / "configs/profiles/kafka.example.yaml"]
    with pytest.raises(ConfigError, match="sasl_password"):
        load_settings(SETTINGS[service], *files)
    monkeypatch.setenv("TWINLOOP_KAFKA__SASL_PASSWORD", "a word")
    assert load_settings(SETTINGS[service], *files).kafka.security_protocol == "SASL_SSL"


def test_the_file_init_writes_is_one_a_gatekeeper_takes(tmp_path: Path) -> None:
    written = tmp_path / "bootstrap.yaml"
    written.write_text(yaml.safe_dump({"gatekeeper": {"bootstrap_release": "0" * 64}}))
    files = [ROOT / "configs/gatekeeper.yaml", ROOT / "configs/profiles/compose.yaml", written]
    assert load_settings(GatekeeperSettings, *files).gatekeeper.bootstrap_release == "0" * 64


def test_both_slots_have_a_worker_and_every_service_runs() -> None:
    slots = {entry["environment"].get("TWINLOOP_INFERENCE__SLOT") for entry in OURS.values()}
    assert {"blue", "green"} <= slots
    assert {settings_of(name) for name in OURS} == {*SETTINGS.values(), ServiceSettings}


def test_redis_syncs_every_write() -> None:
    assert "--appendonly yes --appendfsync always" in SERVICES["redis"]["command"]


def test_ci_runs_what_the_contributing_page_says() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"] == {"contents": "read"}
    assert job["env"]["TWINLOOP_REQUIRE"] == "docker,promtool,chromium,kubectl"
    promtool, *ours = [step["run"] for step in job["steps"] if "run" in step]
    assert promtool.endswith("install --yes --no-install-recommends prometheus")
    assert ours == ["make check", "make test"]
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in uses)
    assert min(job["strategy"]["matrix"]["python"], key=lambda text: int(text.split(".")[1])) == "3.10"
    local = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert local == ["make check", "make test"]


def test_the_core_has_no_profile_and_the_others_add_what_they_say() -> None:
    found: dict[str, set[str]] = {}
    for name, entry in SERVICES.items():
        for profile in entry.get("profiles", ()):
            found.setdefault(profile, set()).add(name)
    assert found == PROFILES
    core = {name for name, entry in SERVICES.items() if "profiles" not in entry}
    assert core >= {"router", "inference-blue", "inference-green", "trainer", "gatekeeper", "api"}
    for name in core:
        assert set(SERVICES[name].get("depends_on", {})) <= core, f"{name} waits for what may not be there"


def test_no_running_service_mounts_another_one_s_keys() -> None:
    mounted = {
        name: [mount for mount in entry.get("volumes", []) if f":{KEYS_FOLDER}" in mount]
        for name, entry in OURS.items()
    }
    for name, mounts in mounted.items():
        owner = next((each for each in SETTINGS if name.startswith(each)), None)
        if owner is not None:
            assert [mount.split(":")[0] for mount in mounts] == [f"{owner}-keys"], name
            # The API's folder takes its token file too.
            assert mounts[0].endswith(":ro") is (owner != "api"), name
    assert {name for name, mounts in mounted.items() if any(m.startswith("all-keys:") for m in mounts)} == {
        "init",
        "keys",
    }


def test_each_service_is_handed_the_key_it_signs_with_and_no_other(tmp_path: Path) -> None:
    """The very line that compose runs, in folders of this test."""
    made, handed = tmp_path / "keys", tmp_path / "handed"
    create_keys(made, KEYS)
    for service in SETTINGS:
        (handed / service).mkdir(parents=True)
    (handed / "api" / "tokens.yaml").write_text("kept")
    shell, flags, script = words("keys")
    line = (
        script.replace("$$", "$")
        .replace(KEYS_FOLDER, str(made))
        .replace("/var/lib/twinloop/handed", str(handed))
    )
    assert "/var/lib" not in line
    subprocess.run([shell, flags, line], check=True, timeout=20)
    found = {service: sorted(os.listdir(handed / service)) for service in SETTINGS}
    assert found == {
        "router": ["public.yaml"],
        "gatekeeper": ["gatekeeper-1.pem", "public.yaml"],
        "inference": ["inference-1.pem", "public.yaml"],
        "trainer": ["public.yaml", "trainer-1.pem"],
        "api": ["approver-1.pem", "approver-2.pem", "operator-1.pem", "public.yaml", "tokens.yaml"],
    }
    for service, names in found.items():
        for key in (name for name in names if name.endswith(".pem")):
            assert load_signer(handed / service, Path(key).stem)
    volumes = [mount.split(":")[:2] for mount in SERVICES["keys"]["volumes"][1:]]
    assert volumes == [
        [f"{each}-keys", f"/var/lib/twinloop/handed/{each}"]
        for each in ("router", "gatekeeper", "inference", "trainer", "api")
    ]


def test_redis_is_told_only_to_those_who_read_the_routing_key() -> None:
    told = {
        name for name, entry in OURS.items() if "TWINLOOP_REDIS__PASSWORD" in entry.get("environment", {})
    }
    assert all(name.startswith(("router", "gatekeeper", "inference")) for name in told)
    assert not {"trainer", "api", "init", "keys"} & told


def test_every_service_of_the_core_is_scraped() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    targets = set(scraped["static_configs"][0]["targets"])
    assert targets == {
        f"{name}:9100" for name in OURS if name not in ONE_SHOTS and "profiles" not in OURS[name]
    }


def test_the_proxy_stands_before_redis() -> None:
    (proxy,) = yaml.safe_load((ROOT / "deploy/toxiproxy/proxies.json").read_text())
    assert proxy["upstream"].split(":")[0] in SERVICES
    assert f"redis://toxiproxy:{proxy['listen'].split(':')[1]}/0" in (ROOT / "docker-compose.yml").read_text()


def test_nobody_can_log_in_to_grafana() -> None:
    told = SERVICES["grafana"]["environment"]
    assert told["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert told["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_spans_of_every_traced_service_reach_the_collector_where_env_says_so() -> None:
    config = yaml.safe_load((ROOT / "deploy/otel/config.yaml").read_text(encoding="utf-8"))
    pipeline = config["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(config[part])
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    address = config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    inside = {port.split(":")[2] for port in SERVICES["otel-collector"]["ports"]}
    assert inside == {address.split(":")[1], config["extensions"]["health_check"]["endpoint"].split(":")[1]}
    assert f"http://otel-collector:{address.split(':')[1]}" in (ROOT / ".env.example").read_text()
    assert SERVICES["otel-collector"]["volumes"] == ["./deploy/otel:/etc/otelcol:ro"]
    traced = {name for name, entry in OURS.items() if "OTEL_EXPORTER_OTLP_ENDPOINT" in entry["environment"]}
    assert traced >= {"router", "inference-blue", "inference-green", "inference-blue-gpu", "api"}
    installed = re.findall(r'--constraint requirements.lock "\.\[([\w,]+)\]"', DOCKERFILE)
    assert len(installed) == 2
    assert all("otel" in extras.split(",") for extras in installed)
