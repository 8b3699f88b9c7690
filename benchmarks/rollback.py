"""From the order to roll back to the last answer of the bad release: `python -m benchmarks.rollback [--quick]`.

The shipped gatekeeper, router and one worker a slot over a real Kafka and Redis; users ask at a steady pace. Each round
a fresh release serves (written by an operator's hand and adopted), then a signed order goes to `commands`. Time runs
from before the order is signed to the time Kafka gave to the last answer of that release.
Writes `benchmarks/results/rollback.json`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from benchmarks.routing_setup import percentile
from schemas.commands import Command
from schemas.routing import RoutingState
from tests.fixtures.live_system import LiveSystem, Load, now_ms, wait_until
from twinloop.bus.producer import PromptProducer
from twinloop.bus.records import Outgoing
from twinloop.codec import encode
from twinloop.routing.store import Installed
from twinloop.signing import load_signer, sign_document

PER_S = 20.0
SEED = 42
GOALS = {"last_bad_answer_ms_p99": "<= 1000, push for 100"}


def measure(live: LiveSystem, *, rounds: int) -> dict[str, Any]:
    bad = [live.add_release(min_score=1.0 + 0.01 * number) for number in range(1, rounds + 1)]
    services = [live.start(name) for name in ("gatekeeper", "router")]
    services += [live.start("inference", f"{slot}-0") for slot in ("blue", "green")]
    live.wait_ready(*services)
    load = Load(live, per_s=PER_S, deadline_ms=60_000, seed=SEED)
    time.sleep(2.0)
    ordered = []
    for release in bad:
        _serve(live, release)
        time.sleep(3.0)
        at_ms = _order(live)
        wait_until(lambda at=release: _active(live) != at, seconds=30, what="the rollback")  # type: ignore[misc]
        ordered.append({"release": release, "at": at_ms})
        time.sleep(1.0)
    load.stop()
    found = live.settled(load)
    return {
        "orders": ordered,
        "lost": found.lost,
        "doubled": found.doubled,
        "answers": [
            [record.timestamp_ms, answer.release]
            for record, answer in found.answers
            if answer.release in set(bad)
        ],
    }


def _active(live: LiveSystem) -> str:
    found = live.routing()
    return "" if found is None else found.active_release


def _serve(live: LiveSystem, release: str) -> None:
    """The release becomes resident in the shadow slot first, then serves."""
    for make_active in (False, True):
        old = live.routing()
        assert old is not None
        written = _by_hand(live, old, release, make_active=make_active)
        assert isinstance(live.install(written, "break-glass"), Installed)

        def is_adopted(epoch: int = written.epoch) -> bool:
            found = live.routing()
            return found is not None and found.epoch > epoch

        wait_until(is_adopted, seconds=30, what="the adoption")
        if not make_active:
            time.sleep(2.0)


def _by_hand(live: LiveSystem, old: RoutingState, release: str, *, make_active: bool) -> RoutingState:
    slot = old.shadow
    unsigned = old.model_copy(
        update={
            "epoch": old.epoch + 1,
            "active": slot if make_active else old.active,
            "releases": {**old.releases, slot: release},
            "previous": old.active_release,
            "rules": {**old.rules, release: live.rules[release]},
            "decision_id": f"by-hand-{uuid.uuid4().hex[:12]}",
            "changed_by": "ada",
        }
    )
    checked = RoutingState.model_validate(unsigned.model_dump())
    return sign_document(checked, load_signer(live.folder / "keys", "operator-1"))


def _order(live: LiveSystem) -> int:
    signer, producer = load_signer(live.folder / "keys", "operator-1"), PromptProducer(live.kafka)
    begun = now_ms()
    order = Command(
        nonce=uuid.uuid4().hex,
        actor="ada",
        action="rollback",
        reason="benchmark",
        issued_at=begun,
        expires_at=begun + 60_000,
        key_id="operator-1",
    )
    value, head = encode(sign_document(order, signer), source="bench", event_id=order.nonce, at_ms=begun)
    topic = live.topics.name("commands")
    producer.send(Outgoing(topic, value, key=b"ada", headers=head, partition=0))
    producer.close(10)
    return begun


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone: how long each bad release still answered after the order (0 where it did not)."""
    last = [
        max([0, *(at - order["at"] for at, release in samples["answers"] if release == order["release"])])
        for order in samples["orders"]
    ]
    served = [
        sum(release == order["release"] for _, release in samples["answers"]) for order in samples["orders"]
    ]
    return {
        "last_bad_answer_ms_p99": percentile(last, 0.99),
        "last_bad_answer_ms_p50": percentile(last, 0.5),
        "rollbacks": len(last),
        "least_answers_of_a_bad_release": min(served),
        "lost": len(samples["lost"]),
        "doubled": len(samples["doubled"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rollbacks")
    is_quick, load = parser.parse_args().quick, os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, LiveSystem(Path(folder)) as live:
        samples = measure(live, rounds=3 if is_quick else 20)
    found = write("rollback", seeds=[SEED], samples=samples, goals=GOALS, load_before=load)
    return 0 if found["last_bad_answer_ms_p99"] <= 1000 else 1


if __name__ == "__main__":
    raise SystemExit(main())
