"""The Kubernetes manifests against the program and the compose file: names, images, topics and limits that exist.

The files themselves are checked everywhere; what kustomize makes of them only where `kubectl` is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.trainer.settings import TrainerSettings
from tests.fixtures.brokers import skip_or_fail
from tests.repository.setting_names import SETTINGS, is_setting
from twinloop.settings_loader import ServiceSettings, load_settings
from twinloop.topics import TopicCatalogue

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
BASE, KEDA = FOLDER / "base", FOLDER / "overlays/keda"
README = FOLDER / "README.md"
PROFILE_FILE = ROOT / "configs/profiles/kubernetes.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
Document = dict[str, Any]


def documents(folder: Path) -> list[Document]:
    """Everything the folder's kustomization takes from files of its own."""
    names = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    files = [folder / name for name in names if name.endswith(".yaml")]
    return [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def of_kind(found: list[Document], *kinds: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in found if each["kind"] in kinds}


BASE_DOCUMENTS = documents(BASE)
RUNNING = of_kind(BASE_DOCUMENTS, "Deployment", "StatefulSet")
WORKLOADS = {**RUNNING, **of_kind(BASE_DOCUMENTS, "Job")}
SCALED = of_kind(documents(KEDA), "ScaledObject")
each_running = pytest.mark.parametrize("name", sorted(RUNNING))
each_workload = pytest.mark.parametrize("name", sorted(WORKLOADS))
each_scaled = pytest.mark.parametrize("name", sorted(SCALED))


def pod(name: str) -> Document:
    spec: Document = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def main_container(name: str) -> Document:
    (container,) = pod(name)["containers"]
    return dict(container)


def all_containers(name: str) -> list[Document]:
    return [*pod(name)["initContainers"], *pod(name)["containers"]]


def labels_of(name: str) -> dict[str, str]:
    found: dict[str, str] = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    return found


def service_of(name: str) -> str:
    return labels_of(name)["app.kubernetes.io/component"]


def settings_of(name: str) -> type[ServiceSettings]:
    return SETTINGS.get(service_of(name), ServiceSettings)


def matches(selector: Document, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", ())
    assert wanted or expressions
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MG])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit == "G" else 1)


def profile_settings(service: str, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    monkeypatch.setenv("TWINLOOP_REDIS__PASSWORD", "a word")
    return load_settings(SETTINGS[service], ROOT / f"configs/{service}.yaml", PROFILE_FILE)


def test_every_file_of_the_base_is_part_of_it() -> None:
    for folder in (BASE, KEDA):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {name for name in kustomization["resources"] if name.endswith(".yaml")}
        assert all((folder / name).exists() for name in kustomization["resources"])
        assert kustomization["namespace"] == "twinloop"


def test_the_services_of_the_compose_file_run_with_their_images_and_programs() -> None:
    core = {"gatekeeper", "router", "inference-blue", "inference-green", "trainer", "api"}
    assert set(RUNNING) == core
    for name in core:
        here, there = main_container(name), COMPOSE["services"][name]
        assert here["image"] == there["image"], name
        assert here["command"][:3] == there["command"].split()[:3], name
        assert here["command"][:2] == ["python", "-m"]
        variables = set(there["environment"]) - {"TWINLOOP_REDIS__URL"}  # the profile has it
        assert variables <= {entry["name"] for entry in here["env"]}, name
    assert main_container("init")["image"] == COMPOSE["services"]["init"]["image"]
    assert main_container("init")["command"][:2] == COMPOSE["services"]["init"]["command"].split()[:2]


@each_workload
def test_every_image_is_one_that_the_dockerfile_builds(name: str) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for container in all_containers(name):
        repository, _, target = container["image"].partition(":")
        assert repository == "twinloop"
        assert target in set(stages) - {"base"}


@each_workload
def test_every_environment_name_is_a_setting_of_that_service(name: str) -> None:
    variables = [entry["name"] for entry in main_container(name)["env"]]
    assert len(variables) == len(set(variables))
    for variable in variables:
        if variable.startswith("TWINLOOP_"):
            assert is_setting(variable, settings_of(name)), f"{name}: {variable} is no setting"
        else:
            foreign = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HOME", "OTEL_EXPORTER_OTLP_ENDPOINT")
            assert variable in foreign, f"{name}: {variable}"


@each_workload
def test_no_secret_is_written_out(name: str) -> None:
    for entry in main_container(name)["env"]:
        if re.search(r"KEY|PASSWORD|SECRET|TOKEN", entry["name"]):
            assert set(entry) == {"name", "valueFrom"}
            assert set(entry["valueFrom"]) == {"secretKeyRef"}


def test_no_file_is_a_secret_and_the_readme_says_how_to_make_each() -> None:
    assert "kind: Secret" not in "".join(file.read_text() for file in FOLDER.rglob("*.yaml"))
    assert "secretGenerator" not in "".join(file.read_text() for file in FOLDER.rglob("*.yaml"))
    text = "".join(file.read_text(encoding="utf-8") for file in BASE.glob("*.yaml"))
    secrets = set(re.findall(r"secretKeyRef: \{name: ([\w-]+)", text))
    secrets |= set(re.findall(r"secretName: ([\w-]+)", text))
    assert len(secrets) == 8
    made = set(
        re.findall(r"(?:create secret generic|password_secret|keys_secret) ([\w-]+)", README.read_text())
    )
    assert secrets <= made


@each_workload
def test_a_config_file_it_is_started_with_is_in_a_config_map_it_mounts(name: str) -> None:
    generated = yaml.safe_load((ROOT / "configs/kustomization.yaml").read_text(encoding="utf-8"))
    maps = {entry["name"]: entry["files"] for entry in generated["configMapGenerator"]}
    (volume,) = [each for each in pod(name)["volumes"] if each["name"] == "config"]
    sources = [source["configMap"] for source in volume["projected"]["sources"]]
    files: set[str] = set()
    for source in sources:
        if source.get("optional"):
            assert source["name"] == "twinloop-ca"
            continue
        for entry in maps[source["name"]]:
            key, _, path = entry.rpartition("=")
            assert (ROOT / "configs" / path).is_file()
            files.add(key or path)
    (mount,) = [each for each in main_container(name)["volumeMounts"] if each["name"] == "config"]
    command = main_container(name)["command"]
    named = [command[place + 1] for place, word in enumerate(command) if word == "--config"]
    assert named[-1] == f"{mount['mountPath']}/profile.yaml"
    assert {Path(each).name for each in named} <= files
    assert {str(Path(each).parent) for each in named} == {mount["mountPath"]}


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_each_service_s_configuration_loads_with_the_kubernetes_profile(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = profile_settings(service, monkeypatch)
    (name,) = [each for each in RUNNING if service_of(each) == service and not each.endswith("green")]
    mounted = {mount["mountPath"] for mount in main_container(name)["volumeMounts"]}
    assert {str(settings.keys.folder), str(settings.store.cache_folder)} <= mounted
    # The API keeps nothing.
    assert (str(settings.state_folder) in mounted) is (service != "api")


@each_running
def test_it_is_probed_on_the_telemetry_port(name: str) -> None:
    container = main_container(name)
    telemetry = yaml.safe_load(PROFILE_FILE.read_text(encoding="utf-8"))["telemetry"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["metrics"] == telemetry["port"]
    assert telemetry["host"] == "0.0.0.0"
    for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}
    annotations = WORKLOADS[name]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(telemetry["port"])


@each_workload
def test_it_may_not_be_root_or_write_to_its_image(name: str) -> None:
    (user,) = re.findall(r"--uid (\d+) twinloop", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    security = pod(name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == int(user)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(name)["automountServiceAccountToken"] is False
    # Kubernetes would otherwise set TWINLOOP_... variables of its own for Services called so.
    assert pod(name)["enableServiceLinks"] is False
    for container in all_containers(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@each_workload
def test_it_says_what_it_needs_and_its_memory_is_bounded(name: str) -> None:
    for container in all_containers(name):
        needs = container["resources"]
        assert set(needs["requests"]) == {"cpu", "memory"}
        assert mebibytes(needs["requests"]["memory"]) <= mebibytes(needs["limits"]["memory"])


@each_workload
def test_what_it_mounts_is_a_volume_of_its_pod_and_every_folder_is_bounded(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    for container in all_containers(name):
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    claims = of_kind(BASE_DOCUMENTS, "PersistentVolumeClaim")
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims
            assert RUNNING[name]["spec"]["strategy"] == {"type": "Recreate"}
            assert RUNNING[name]["spec"]["replicas"] == 1
        elif "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
    cache_bytes = yaml.safe_load(PROFILE_FILE.read_text(encoding="utf-8"))["store"]["cache_max_bytes"]
    assert mebibytes(volumes["cache"]["emptyDir"]["sizeLimit"]) * 2**20 > cache_bytes


@each_workload
def test_it_gets_the_keys_of_its_own_service_alone(name: str) -> None:
    (volume,) = [each for each in pod(name)["volumes"] if each["name"] == "handed-keys"]
    # The first release is the trainer's.
    owner = "trainer" if name == "init" else service_of(name)
    assert volume["secret"]["secretName"] == f"twinloop-{owner}-keys"
    assert all(mount["name"] != "handed-keys" for mount in main_container(name)["volumeMounts"])
    (init,) = pod(name)["initContainers"]
    assert "install -m 600" in init["command"][-1]


@each_running
def test_it_has_longer_to_stop_than_it_takes_at_worst(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = profile_settings(service_of(name), monkeypatch)
    # A commit nobody confirms, the question what became of it, the last flush of a producer.
    worst = settings.kafka.commit_timeout_s + settings.kafka.request_timeout_s + 5.0
    if isinstance(settings, TrainerSettings):
        worst += 2 * (settings.trainer.job.stop_grace_s + 10.0)
    grace = pod(name)["terminationGracePeriodSeconds"]
    assert grace > worst
    assert grace > int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s"))


@each_running
def test_its_selector_matches_its_own_pods_and_no_others(name: str) -> None:
    selector = RUNNING[name]["spec"]["selector"]
    assert [each for each in WORKLOADS if matches(selector, labels_of(each))] == [name]


def test_services_budgets_and_policies_select_pods_that_exist() -> None:
    everyone = set(WORKLOADS)
    chosen = {
        f"{each['kind']} {each['metadata']['name']}": {
            name for name in WORKLOADS if matches(selector_of(each), labels_of(name))
        }
        for each in BASE_DOCUMENTS
        if each["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy")
    }
    assert chosen == {
        "Service api": {"api"},
        "Service metrics": everyone,
        "PodDisruptionBudget router": {"router"},
        "PodDisruptionBudget inference-blue": {"inference-blue"},
        "PodDisruptionBudget inference-green": {"inference-green"},
        "NetworkPolicy twinloop": everyone,
        "NetworkPolicy twinloop-redis": {
            name
            for name in WORKLOADS
            if any(entry["name"] == "TWINLOOP_REDIS__PASSWORD" for entry in main_container(name)["env"])
        },
        "NetworkPolicy twinloop-api": {"api"},
    }


def selector_of(document: Document) -> Document:
    spec = document["spec"]
    if document["kind"] == "Service":
        return {"matchLabels": spec["selector"]}
    selector: Document = (
        spec["selector"] if document["kind"] == "PodDisruptionBudget" else spec["podSelector"]
    )
    return selector


def test_the_network_policy_lets_out_what_the_profile_asks_for() -> None:
    policies = of_kind(BASE_DOCUMENTS, "NetworkPolicy")
    profile = PROFILE_FILE.read_text(encoding="utf-8")

    def out(name: str) -> set[int]:
        return {port["port"] for rule in policies[name]["spec"]["egress"] for port in rule["ports"]}

    kafka, redis, store = (
        int(re.search(pattern, profile)[1])  # type: ignore[index]
        for pattern in (r"bootstrap_servers: \S+:(\d+)", r"redis://\S+:(\d+)/", r"endpoint: http://\S+:(\d+)")
    )
    assert {kafka, store, 53, 443} <= out("twinloop")
    assert out("twinloop-redis") == {redis}


def test_routers_and_workers_keep_their_names_over_a_restart() -> None:
    """`instance` must be stable: a StatefulSet's index is, a Deployment's pod name is not."""
    for name, workload in RUNNING.items():
        instances = [entry for entry in main_container(name)["env"] if entry["name"] == "TWINLOOP_INSTANCE"]
        if workload["kind"] == "Deployment":
            assert workload["spec"]["replicas"] == 1
            assert instances == []
            continue
        assert workload["spec"]["serviceName"] in of_kind(BASE_DOCUMENTS, "Service")
        (instance,) = instances
        assert "pod-index" in instance["valueFrom"]["fieldRef"]["fieldPath"]
    assert {name for name, each in RUNNING.items() if each["kind"] == "StatefulSet"} == set(SCALED)


def test_the_slots_are_alike_but_for_their_names() -> None:
    blue, green = (yaml.safe_dump(RUNNING[f"inference-{slot}"]) for slot in ("blue", "green"))
    assert blue.replace("blue", "green") == green


def group_and_topic(service: str, slot: str) -> tuple[str, str]:
    """What the program consumes, read off the place where it is put together."""
    text = (ROOT / f"services/{service}/__main__.py").read_text(encoding="utf-8")
    (group,) = re.findall(r'group=f"\{settings\.topics\.prefix\}([^"]+)"', text)
    (topic,) = re.findall(r'topics=\[topics\.name\(f?"([^"]+)"\)\]', text)
    return group.replace("{section.slot}", slot), topic.replace("{section.slot}", slot)


@each_scaled
def test_it_scales_on_topics_and_groups_that_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service, _, slot = name.partition("-")
    settings = profile_settings(service, monkeypatch)
    catalogue = TopicCatalogue.under(settings.topics)
    found = set()
    for trigger in SCALED[name]["spec"]["triggers"]:
        assert trigger["type"] == "kafka"
        metadata = trigger["metadata"]
        assert all(isinstance(value, str) for value in metadata.values())
        assert metadata["bootstrapServers"] == settings.kafka.bootstrap_servers
        assert int(metadata["lagThreshold"]) > 0
        declared = catalogue.declared_name(metadata["topic"])
        assert service in catalogue.declarations[declared].consumers
        found.add((metadata["consumerGroup"].removeprefix(settings.topics.prefix), declared))
    slots = ("blue", "green") if slot else ("",)
    assert found == {group_and_topic(service, each) for each in slots}


@each_scaled
def test_it_never_scales_to_zero_or_beyond_the_partitions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SCALED[name]["spec"]
    target = spec["scaleTargetRef"]
    workload = RUNNING[target["name"]]
    assert (target["kind"], target["apiVersion"]) == (workload["kind"], workload["apiVersion"])
    catalogue = TopicCatalogue.under(profile_settings("router", monkeypatch).topics)
    assert 1 <= spec["minReplicaCount"] <= workload["spec"]["replicas"] <= spec["maxReplicaCount"]
    for trigger in spec["triggers"]:
        declared = catalogue.declared_name(trigger["metadata"]["topic"])
        assert spec["maxReplicaCount"] <= catalogue.partitions(declared)


def test_both_slots_scale_alike() -> None:
    blue, green = (dict(SCALED[f"inference-{slot}"]["spec"]) for slot in ("blue", "green"))
    assert blue.pop("scaleTargetRef") != green.pop("scaleTargetRef")
    assert blue == green


def rendered(folder: Path) -> list[Document]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        skip_or_fail(
            "kubectl",
            "no kubectl on PATH: the manifests' files were checked, not what kustomize makes of them",
        )
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def config_maps_named(found: list[Document]) -> set[str]:
    return {
        source["configMap"]["name"]
        for workload in of_kind(found, "Deployment", "StatefulSet", "Job").values()
        for volume in workload["spec"]["template"]["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if not source["configMap"].get("optional")
    }


def test_the_base_renders_with_the_settings_as_they_are() -> None:
    found = rendered(BASE)
    maps = of_kind(found, "ConfigMap")
    assert config_maps_named(found) == set(maps)
    assert all(re.fullmatch(r"twinloop-[a-z]+-[0-9a-z]{10}", name) for name in maps)
    files = {file: text for entry in maps.values() for file, text in entry["data"].items()}
    assert files.pop("profile.yaml") == PROFILE_FILE.read_text(encoding="utf-8")
    for file, text in files.items():
        assert text == (ROOT / "configs" / file).read_text(encoding="utf-8")
    assert {each["metadata"]["namespace"] for each in found} == {"twinloop"}


def test_the_overlay_leaves_the_count_of_processes_to_the_scaler() -> None:
    found = rendered(KEDA)
    assert set(of_kind(found, "ScaledObject")) == set(SCALED)
    assert all("replicas" not in each["spec"] for each in of_kind(found, "StatefulSet").values())
    assert all(each["spec"]["replicas"] == 1 for each in of_kind(found, "Deployment").values())


def test_an_overlay_like_the_readme_s_has_its_own_images_and_profile(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```yaml\n# my-cluster/kustomization\.yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    overlay = yaml.safe_load(example)
    assert overlay["resources"] == ["../twinloop/deploy/kubernetes/overlays/keda"]
    overlay["resources"] = [os.path.relpath(KEDA, tmp_path.resolve())]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    (tmp_path / "profile.yaml").write_text("kafka: {bootstrap_servers: 'elsewhere:9093'}\n", encoding="utf-8")
    found = rendered(tmp_path)
    assert config_maps_named(found) == set(of_kind(found, "ConfigMap"))
    (profile,) = [each for name, each in of_kind(found, "ConfigMap").items() if "-profile-" in name]
    assert "elsewhere:9093" in profile["data"]["profile.yaml"]
    for workload in of_kind(found, "Deployment", "StatefulSet", "Job").values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert re.fullmatch(r"registry\.example/twinloop/0\.1\.0:(lean|model)", container["image"])
    for scaled in of_kind(found, "ScaledObject").values():
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["metadata"]["bootstrapServers"] == "broker-1.example:9093"
