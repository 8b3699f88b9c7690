"""What a learning job is given, and whose fault its end is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from schemas.event import DOMAINS
from schemas.releases import Release
from services.trainer.child_process import WarmProcess
from services.trainer.core.dataset import TrainingMaterial
from services.trainer.learning_job import LearningJobs, Learnt, Lesson, TrainingFailed
from services.trainer.settings import TrainerSection
from twinloop.canonical import sha256_hex
from twinloop.errors import ArtifactError
from twinloop.registry.blobs import BlobStore, open_store
from twinloop.registry.manifests import digest_folder, put_manifest
from twinloop.registry.store_settings import StoreSettings

JOB = "tests.integration.trainer.fake_job"
LESSON = Lesson("law", TrainingMaterial(rows=({"id": "fb-1"},), gate_rows=(), replay_rows=()), None, 42)


class School:
    """A store with one release, and jobs that start from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "foundation"
        self.source.mkdir()
        (self.source / "config.json").write_text("{}")
        self.store: BlobStore = open_store(StoreSettings(url=(folder / "store").as_uri(), create_folder=True))

    def parent(self, foundation: str) -> Release:
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
        adapter = put_manifest(self.store, "adapter", files)
        return Release(
            foundation=foundation,
            embedder="e" * 64,
            adapters=dict.fromkeys(DOMAINS, adapter),
            indexes=dict.fromkeys(DOMAINS, "1" * 64),
            rules="2" * 64,
            prompt=self.store.put(b'{"kind":"tagged"}'),
        )

    def learn(self, parent: Release, *, learning: dict[str, Any] | None = None, **foundation: Any) -> Learnt:
        section = TrainerSection.model_validate(
            {
                "job": {"module": JOB, "timeout_s": 60, "learning": {"seconds": 0, **(learning or {})}},
                "foundation": foundation or {"source": str(self.source)},
                "replay": {"general_file": None},
            }
        )
        jobs = LearningJobs(
            self.store,
            section,
            artifacts=self.folder / "artifacts",
            process=WarmProcess(JOB, log=self.folder / "learning.log"),
        )
        return jobs.learn([LESSON], parent, folder=self.folder / "run", cancel=threading.Event())["law"]


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(tmp_path)


@pytest.fixture
def parent(school: School) -> Release:
    return school.parent(digest_folder(school.source, "foundation"))


def test_a_child_that_refuses_an_artifact_blames_the_store_and_not_the_rows(
    school: School, parent: Release
) -> None:
    with pytest.raises(ArtifactError, match=r"law: the child refused an artifact.*stderr\.log"):
        school.learn(parent, learning={"fail_with": 3})


def test_a_child_that_cannot_use_its_rows_blames_them(school: School, parent: Release) -> None:
    with pytest.raises(TrainingFailed, match="unusable") as failed:
        school.learn(parent, learning={"fail_with": 2})

    assert failed.value.is_final


def test_a_result_that_lacks_a_file_it_names_is_a_failed_training(school: School, parent: Release) -> None:
    with pytest.raises(TrainingFailed, match=r"law: the result cannot be read: .*fisher\.safetensors"):
        school.learn(parent, learning={"lose": "fisher.safetensors"})


HUB = {"source": "someone/some-model", "revision": "a" * 40}


def test_a_hub_foundation_that_is_not_the_parents_is_never_trained(school: School) -> None:
    parent = school.parent(sha256_hex(f"someone/some-model@{'b' * 40}".encode()))

    with pytest.raises(ArtifactError, match=r"someone/some-model@a{40}") as refused:
        school.learn(parent, **HUB)

    assert parent.foundation in str(refused.value)
    assert sha256_hex(f"someone/some-model@{'a' * 40}".encode()) in str(refused.value)


def test_a_hub_foundation_that_the_parent_names_is_trained(school: School) -> None:
    parent = school.parent(sha256_hex(f"someone/some-model@{'a' * 40}".encode()))

    assert school.learn(parent, **HUB).adapter


def test_a_folder_that_is_not_the_parents_foundation_is_never_trained(school: School) -> None:
    with pytest.raises(ArtifactError, match=r"foundation f{64}.* trainer\.foundation names"):
        school.learn(school.parent("f" * 64))
