"""Decisions are posted to a real HTTP server: signed, in order, once each, and none is lost while it is down."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from twinloop.bus.stream import TransactionalStream
from twinloop.errors import Transient

KEY = b"a key of thirty-two bytes in all"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver:
    """Somebody's pager: checks signatures, notes ids in order, and can be out of order."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.kinds: list[str] = []
        self.refused: list[str] = []
        self.forged = 0
        self.failures_left = 0
        self.is_down = False
        self.delay_s = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(receiver.delay_s)
                self.send_response(receiver.take(dict(self.headers.items()), body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        headers = {name.lower(): value for name, value in headers.items()}
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        if headers["webhook-signature"] != expected:
            self.forged += 1
            return 401
        if self.is_down or self.failures_left > 0:
            self.failures_left -= 1
            self.refused.append(headers["webhook-id"])
            return 500
        self.taken.append(headers["webhook-id"])
        self.kinds.append(json.loads(body)["data"]["kind"])
        return 204

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def hook(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    return {
        "endpoints": {"oncall": receiver.url},
        "secret": SECRET,
        "first_retry_s": 0.1,
        "longest_retry_s": 0.5,
        **fields,
    }


def pause_and_resume(world: World, times: int) -> None:
    for _ in range(times):
        for action in ("pause", "resume"):
            before = len(world.decisions())
            world.order(action)  # type: ignore[arg-type]
            world.wait_for(lambda before=before: len(world.decisions()) > before)  # type: ignore[misc]


def ids(world: World) -> list[str]:
    return [decision.decision_id for decision in world.decisions()]


def series(running: Running, result: str) -> float:
    metrics = running.worker._parts.metrics
    return metrics.webhook_posts.labels("oncall", result)._value.get()


@pytest.mark.kafka
def test_an_endpoint_that_fails_at_first_gets_every_decision_once_and_in_order(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    receiver.failures_left = 4
    running = start(webhook=hook(receiver))
    world.wait_for_kind("genesis")
    pause_and_resume(world, 2)
    world.wait_for(lambda: len(receiver.taken) == 5)
    assert receiver.taken == ids(world)
    assert receiver.kinds == ["genesis", "pause", "resume", "pause", "resume"]
    assert set(receiver.refused) == {receiver.taken[0]}
    assert receiver.forged == 0
    assert series(running, "refused") == 4
    assert series(running, "taken") == 5


@pytest.mark.kafka
def test_what_was_decided_while_an_endpoint_was_down_comes_after_a_restart(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    first = start(webhook=hook(receiver))
    world.wait_for_kind("genesis")
    world.wait_for(lambda: len(receiver.taken) == 1)
    receiver.is_down = True
    pause_and_resume(world, 2)
    world.wait_for(lambda: len(receiver.refused) >= 2)
    first.stop()
    receiver.is_down = False
    start(webhook=hook(receiver))
    world.wait_for(lambda: len(receiver.taken) >= 5)
    time.sleep(1.0)
    assert receiver.taken == ids(world)
    assert set(receiver.refused) == {receiver.taken[1]}


def test_a_decision_whose_commit_a_rebalance_undid_is_not_posted_again(
    world: World, start: Callable[..., Running], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, undone = TransactionalStream.commit, list[str]()

    def commit_that_fails_once_a_decision(stream: TransactionalStream, *args: Any, **named: Any) -> None:
        note = "".join(named.get("metadata", {}).values())
        if note and note not in undone:
            undone.append(note)
            stream.abort()
            raise Transient("the group is rebalancing")
        commit(stream, *args, **named)

    monkeypatch.setattr(TransactionalStream, "commit", commit_that_fails_once_a_decision)
    first = start(webhook=hook(receiver))
    world.wait_for_kind("genesis")
    pause_and_resume(world, 1)
    world.wait_for(lambda: len(undone) == 3)
    pause_and_resume(world, 1)
    world.wait_for(lambda: len(undone) == 5)
    assert receiver.taken == ids(world)
    first.stop()
    start(webhook=hook(receiver))
    pause_and_resume(world, 1)
    world.wait_for(lambda: len(undone) == 7)
    assert receiver.taken == ids(world)


@pytest.mark.kafka
def test_of_two_gatekeepers_only_one_posts(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    start(webhook=hook(receiver))
    world.wait_for_kind("genesis")
    second = start(instance="1", webhook=hook(receiver))
    world.wait_for(lambda: second.worker.is_ready()[0])
    pause_and_resume(world, 5)
    world.wait_for(lambda: len(receiver.taken) >= 11)
    time.sleep(1.0)
    assert receiver.taken == ids(world)


def test_an_endpoint_that_hangs_slows_no_decision(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    start(webhook=hook(receiver))
    world.wait_for_kind("genesis")
    receiver.delay_s = 3.0
    began = time.monotonic()
    pause_and_resume(world, 3)
    assert time.monotonic() - began < 15.0
    assert len(receiver.taken) < 7
    receiver.delay_s = 0.0
    world.wait_for(lambda: receiver.taken == ids(world))


def test_a_decision_nobody_takes_is_given_up_and_counted(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    receiver.is_down = True
    running = start(webhook=hook(receiver, give_up_s=0.5))
    world.wait_for_kind("genesis")
    world.wait_for(lambda: series(running, "given_up") == 1)
    receiver.is_down = False
    pause_and_resume(world, 1)
    world.wait_for(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ids(world)[1:]


def test_an_endpoint_added_later_begins_with_the_next_decision(
    world: World, start: Callable[..., Running], receiver: Receiver
) -> None:
    first = start()
    world.wait_for_kind("genesis")
    pause_and_resume(world, 1)
    first.stop()
    start(webhook=hook(receiver))
    pause_and_resume(world, 1)
    world.wait_for(lambda: len(receiver.taken) == 2)
    assert receiver.taken == ids(world)[3:]
