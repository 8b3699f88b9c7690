"""`twinloop backup` and `twinloop restore` as people call them, on a real Kafka: what comes back, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from tests.integration.backup.conftest import SmallInstallation
from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.records import TopicPartition
from twinloop.cli.__main__ import main
from twinloop.registry.blobs import open_store
from twinloop.registry.store_settings import StoreSettings
from twinloop.routing.redis_settings import RedisSettings
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.signing import load_signer
from twinloop.topics import TopicCatalogue

pytestmark = pytest.mark.kafka


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def twinloop(*arguments: str | Path) -> Done:
    """The command line as its entry point runs it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["twinloop", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def on_a_small_disk(*arguments: str | Path, largest_file: int) -> Done:
    """The command line in a process that cannot write larger files: what a full disk does to the first write."""
    done = subprocess.run(
        [sys.executable, "-m", "twinloop.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )
    return Done(done.returncode, done.stdout, done.stderr)


def backed_up(small: SmallInstallation, *options: str, name: str = "copy") -> Path:
    folder = small.folder / name
    done = twinloop("backup", folder, "--config", small.old, *options)
    assert done.returncode == 0, done.stderr
    return folder


def ends(small: SmallInstallation) -> dict[TopicPartition, int]:
    admin, topics = KafkaAdmin(small.kafka.settings), small.bench.topics
    return {
        place: admin.end_of(place)
        for topic in topics.backed_up()
        for place in (
            TopicPartition(topics.name(topic), number) for number in range(topics.partitions(topic))
        )
    }


def test_everything_comes_back_at_its_offset_and_under_its_digest(small: SmallInstallation) -> None:
    before, before_ends = small.log(), ends(small)
    folder = backed_up(small, "--json")
    small.wipe()
    done = twinloop("restore", folder, "--config", small.new, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["restored"] is True
    assert small.log() == before
    assert ends(small) == before_ends
    assert all(before.values()) is False, "quarantine is empty here, and empty partitions come back empty"
    old, new = (
        open_store(StoreSettings(url=(small.folder / place / "store").as_uri())) for place in ("old", "new")
    )
    assert old.list_blobs() == new.list_blobs() != []
    assert old.list_documents() == new.list_documents() != []
    for digest in new.list_blobs():
        new.verify(digest)


def test_private_keys_are_left_out_unless_they_are_asked_for(small: SmallInstallation) -> None:
    without = backed_up(small)
    assert sorted(path.name for path in (without / "keys").iterdir()) == ["public.yaml"]
    folder = backed_up(small, "--with-private-keys", name="secret")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in (folder / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    small.wipe()
    assert twinloop("restore", folder, "--config", small.new).returncode == 0
    assert load_signer(small.folder / "new" / "keys", "gatekeeper-1").key_id == "gatekeeper-1"


def test_a_restore_without_private_keys_says_which_are_missing(small: SmallInstallation) -> None:
    folder = backed_up(small)
    small.wipe()
    done = twinloop("restore", folder, "--config", small.new)
    assert done.returncode == 0, done.stderr
    assert "gatekeeper-1" in done.stdout
    assert "Rotate keys" in done.stdout


def test_passwords_stay_out_of_the_copied_settings(small: SmallInstallation) -> None:
    small.old = small.profile(small.folder / "old", redis={"url": small.redis_url, "password": "hunter2"})
    # The embedded Valkey asks for no password, and a back-up asks nothing of it.
    folder = backed_up(small)
    (copied,) = (folder / "config").iterdir()
    assert "hunter2" not in copied.read_text()
    assert yaml.safe_load(copied.read_text())["redis"]["url"] == small.redis_url


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def test_a_flipped_byte_is_refused_by_the_name_of_its_file(small: SmallInstallation) -> None:
    folder = backed_up(small)
    patterns = ("log/decisions/0.jsonl", "log/feedback/*.jsonl", "store/blobs/sha256/*", "config/*")
    for number, pattern in enumerate(patterns):
        damaged = small.folder / f"damaged-{number}"
        shutil.copytree(folder, damaged)
        path = next(each for each in sorted(damaged.glob(pattern)) if each.stat().st_size)
        flip(path)
        done = twinloop("restore", damaged, "--config", small.new, "--check")
        assert done.returncode == 1, pattern
        assert f"{path} is damaged" in done.stderr
    assert twinloop("restore", folder, "--config", small.new, "--check").returncode == 0


def test_a_changed_manifest_is_refused(small: SmallInstallation) -> None:
    folder = backed_up(small)
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "epoch": document["epoch"] + 1}))
    done = twinloop("restore", folder, "--config", small.new, "--check")
    assert done.returncode == 1
    assert "signature" in done.stderr


def test_a_backup_by_a_stranger_is_refused_where_the_installation_has_its_own_keys(
    small: SmallInstallation,
) -> None:
    folder = backed_up(small)
    (small.folder / "new" / "keys").mkdir(parents=True)
    (small.folder / "new" / "keys" / "public.yaml").write_text("keys: []\n")
    small.wipe()
    done = twinloop("restore", folder, "--config", small.new)
    assert done.returncode == 1
    assert "'operator-1' is not in the configured key file" in done.stderr


def test_a_backup_that_lost_or_gained_a_file_is_refused(small: SmallInstallation) -> None:
    folder = backed_up(small)

    def refusal() -> str:
        done = twinloop("restore", folder, "--config", small.new, "--check")
        assert done.returncode == 1
        return done.stderr

    extra, lost = folder / "log" / "extra.jsonl", folder / "log" / "releases" / "0.jsonl"
    extra.write_text("")
    assert f"{extra} is not named" in refusal()
    extra.unlink()
    lost.unlink()
    assert f"{lost} is missing" in refusal()
    (folder / "manifest.json").unlink()
    assert "interrupted" in refusal()


def test_an_interrupted_backup_leaves_no_manifest_and_is_refused(small: SmallInstallation) -> None:
    folder = small.folder / "copy"
    done = on_a_small_disk("backup", folder, "--config", small.old, largest_file=3000)
    assert done.returncode == 3, done.stderr
    assert "delete it, make room and try again" in done.stderr
    assert not (folder / "manifest.json").exists()
    refused = twinloop("restore", folder, "--config", small.new)
    assert refused.returncode == 1
    assert "interrupted" in refused.stderr or "is no back-up" in refused.stderr
    again = twinloop("backup", folder, "--config", small.old)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_an_installation_with_a_log_is_not_restored_into(small: SmallInstallation) -> None:
    folder = backed_up(small)
    before = small.log()
    done = twinloop("restore", folder, "--config", small.new)
    assert done.returncode == 2
    assert "holds records up to offset" in done.stderr
    assert small.log() == before
    assert not (small.folder / "new" / "store").exists()


def test_an_installation_with_a_routing_key_or_a_state_is_not_restored_into(small: SmallInstallation) -> None:
    folder = backed_up(small)
    small.wipe()
    store = RedisRoutingStore(RedisSettings(url=small.redis_url))
    store.install(b'{"epoch":1,"incarnation":"i"}', mode="create")
    store.close()
    done = twinloop("restore", folder, "--config", small.new)
    assert (done.returncode, "exists" in done.stderr) == (2, True)
    small.new = small.profile(
        small.folder / "new", redis={"url": small.redis_url, "key": "another", "password": None}
    )
    state = small.folder / "new" / "state"
    state.mkdir()
    (state / "gatekeeper-0.checkpoint").write_text("")
    done = twinloop("restore", folder, "--config", small.new)
    assert done.returncode == 2
    assert "gatekeeper-0.checkpoint is left from another life" in done.stderr
    shutil.rmtree(state)
    assert twinloop("restore", folder, "--config", small.new).returncode == 0


def test_another_number_of_partitions_is_refused(small: SmallInstallation) -> None:
    folder = backed_up(small)
    topics: dict[str, Any] = {**small.bench.topics.settings.model_dump(), "origin_partitions": 7}
    done = twinloop("restore", folder, "--config", small.profile(small.folder / "new", topics=topics))
    assert done.returncode == 2
    assert "set it to 4" in done.stderr


def test_a_store_that_lacks_a_serving_release_cannot_be_backed_up(small: SmallInstallation) -> None:
    release = small.bench.release(small.bench.first).release
    os.unlink(small.folder / "old" / "store" / "blobs" / "sha256" / release.rules)
    done = twinloop("backup", small.folder / "copy", "--config", small.old)
    assert done.returncode == 1
    assert release.rules in done.stderr


def test_every_topic_that_lasts_is_backed_up_and_effects_come_before_causes() -> None:
    topics = TopicCatalogue.load()
    order = topics.backed_up()
    for name, declared in topics.declarations.items():
        assert declared.retention != "forever" or name in order
    for effect, cause in (
        ("decisions", "gate-inputs"),
        ("gate-inputs", "releases"),
        ("gate-inputs", "commands"),
        ("feedback.status", "feedback"),
        ("feedback.status", "decisions"),
    ):
        assert order.index(effect) < order.index(cause)
