"""Two gatekeepers that both believe they lead: a thousand decisions, and each has exactly one winner."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from schemas.commands import Command
from schemas.decisions import Decision
from schemas.gate_inputs import CommandSeen, GateInput
from services.gatekeeper.__main__ import build_worker
from services.gatekeeper.core.state import JudgeState
from services.gatekeeper.judge_loop import JudgeLoop
from services.gatekeeper.replay import replay
from services.gatekeeper.settings import GatekeeperSettings
from tests.integration.gatekeeper.conftest import FAST, write_probes
from tests.integration.gatekeeper.world import World
from twinloop.bus.records import Outgoing
from twinloop.codec import decode, encode
from twinloop.errors import Transient

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
DECISIONS = 1000


class Racer:
    """A judge that leads whatever the group says, in a thread of its own."""

    def __init__(self, world: World, stack: ExitStack, *, instance: str, boot: str) -> None:
        own = {**FAST, "bootstrap_release": boot, "probes": {"file": write_probes(world)}}
        settings = GatekeeperSettings(**world.settings(**own), instance=instance)
        self.judge: JudgeLoop = build_worker(settings, stack).worker._parts.judge
        self.judge.start()
        self.judge.is_leader = True
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.judge.step(0.01)
            except Transient:
                continue
            except BaseException as error:
                self.error = error
                return

    def stop(self) -> None:
        self._stop.set()
        self.thread.join(30)
        self.judge.close()


@pytest.fixture
def racers(world: World) -> Iterator[list[Racer]]:
    boot = world.release(1)
    with ExitStack() as stack:
        found = [Racer(world, stack, instance=name, boot=boot) for name in ("0", "1")]
        yield found
        for racer in found:
            racer.stop()


def has_applied_the_newest(state: JudgeState) -> bool:
    """False while the racer has folded nothing yet."""
    return state.routing is not None and state.applied_epoch >= state.routing.epoch


def order(world: World, number: int) -> None:
    """A pause or a resume as the stream edge logs it; each leads to one decision."""
    now = world.now_ms()
    command = Command(
        nonce=f"race-{number}",
        actor="ada",
        action="resume" if number % 2 else "pause",
        reason="a race",
        issued_at=now,
        expires_at=now + 600_000,
        key_id="operator-1",
    )
    body = CommandSeen(command=command, verdict="allowed", source_offset=number)
    value, headers = encode(GateInput(by="race", body=body), source="race", event_id=command.nonce, at_ms=now)
    world.producer.send(
        Outgoing(world.topics.name("gate-inputs"), value, key=b"race", headers=headers, partition=0)
    )


def test_each_of_a_thousand_decisions_has_one_winner_and_the_key_never_goes_back(
    world: World, racers: list[Racer]
) -> None:
    written = redis.Redis.from_url(world.redis_url).pubsub(ignore_subscribe_messages=True)
    written.subscribe(f"{world.prefix}routing")
    written.get_message(timeout=5)
    for racer in racers:
        racer.thread.start()
    world.wait_for_kind("genesis")
    for number in range(DECISIONS):
        order(world, number)
    world.producer.flush()

    def is_over() -> bool:
        if any(racer.error for racer in racers):
            return True
        ends = [racer.judge.state.command_offset == DECISIONS - 1 for racer in racers]
        return all(ends) and all(has_applied_the_newest(racer.judge.state) for racer in racers)

    world.wait_for(is_over, timeout_s=200)
    assert [racer.error for racer in racers] == [None, None]

    logged = world.decisions()
    winners: dict[int, Decision] = {}
    for decision in logged:
        winners.setdefault(decision.epoch, decision)
    assert list(winners) == list(range(1, max(winners) + 1))
    assert Counter(decision.kind for decision in winners.values())["pause"] == DECISIONS // 2
    assert Counter(decision.kind for decision in winners.values())["resume"] == DECISIONS // 2

    inputs = [(record.offset, decode(record, GateInput)) for record in world.read("gate-inputs")]
    assert replay(inputs, logged).mismatches == ()
    state = world.routing()
    assert state is not None
    assert state == winners[max(winners)].state
    assert racers[0].judge.state.last_decision == racers[1].judge.state.last_decision
    epochs = [int(message["data"]) for message in iter(lambda: written.get_message(timeout=1), None)]
    written.close()
    assert epochs == sorted(epochs)
    assert epochs[-1] == state.epoch
