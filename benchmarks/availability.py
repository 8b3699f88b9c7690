"""What users notice of faults: `python -m benchmarks.availability [--quick]`.

The shipped system (gatekeeper, two routers, two workers a slot) over a real Kafka of three brokers and a Redis behind a
link that can be cut; users ask at a steady pace with a deadline of 10 s; faults of many kinds follow a fixed script.
Answered: an answer without error, from an unrevoked release, within the deadline. A second counts as down where a query
asked in it was not answered within the objective of 2 s. Projected: what remains of a day with one fault of each kind.
A process that was killed, or ended because Kafka fenced it, is started again at once, as every supervisor does.
Writes `benchmarks/results/availability.json`.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.result_file import write
from tests.fixtures.live_system import LiveSystem, Load, now_ms

PER_S = 15.0
SEED = 42
DEADLINE_MS = 10_000
OBJECTIVE_MS = 2000
DAY_S = 86_400
GOALS = {
    "answered_share": ">= 0.9995, push for 0.9999",
    "projected_availability": ">= 0.9995, push for 0.9999",
    "lost": "0",
    "doubled": "0",
    "faults": ">= 12 of at least 6 kinds",
}
Fault = Callable[[LiveSystem], None]


class Supervisor:
    """Starts again at once what has ended, for as long as the block lasts."""

    def __init__(self, live: LiveSystem) -> None:
        self._live = live
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def restarts(self) -> dict[str, int]:
        """How often each service was started again, kills of the script included."""
        services = self._live.services
        return {name: each.child.starts - 1 for name, each in services.items() if each.child.starts > 1}

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            for service in list(self._live.services.values()):
                if not service.child.is_running:
                    service.start()


def kill(name: str) -> Fault:
    """SIGKILL; the supervisor starts a new process."""

    def fault(live: LiveSystem) -> None:
        live.services[name].child.signal(signal.SIGKILL)

    return fault


def freeze(name: str, seconds: float) -> Fault:
    def fault(live: LiveSystem) -> None:
        live.services[name].freeze()
        time.sleep(seconds)
        live.services[name].thaw()

    return fault


def redis_killed(live: LiveSystem) -> None:
    live.redis_server.kill()
    live.redis_server.start()


def redis_frozen(live: LiveSystem) -> None:
    live.redis_server.freeze()
    time.sleep(1.0)
    live.redis_server.thaw()


def link_cut(live: LiveSystem) -> None:
    live.proxy.cut("blackhole")
    time.sleep(1.0)
    live.proxy.cut("pass")


def broker_killed(live: LiveSystem) -> None:
    live.broker.kill(0)
    live.broker.start()


def broker_upgraded(live: LiveSystem) -> None:
    """Stopped in good order and started again, as for an upgrade."""
    live.broker.restart_node(1)


SCRIPT: tuple[tuple[str, Fault], ...] = (
    ("router killed", kill("router-0")),
    ("worker killed", kill("inference-blue-0")),
    ("redis killed", redis_killed),
    ("router frozen 3 s", freeze("router-1", 3.0)),
    ("redis frozen 1 s", redis_frozen),
    ("gatekeeper killed", kill("gatekeeper-0")),
    ("broker of three killed", broker_killed),
    ("worker frozen 3 s", freeze("inference-blue-1", 3.0)),
    ("link to redis cut 1 s", link_cut),
    ("router killed", kill("router-1")),
    ("worker killed", kill("inference-blue-1")),
    ("broker of three restarted", broker_upgraded),
)


def measure(live: LiveSystem, *, spacing_s: float, script: tuple[tuple[str, Fault], ...]) -> dict[str, Any]:
    live.start("gatekeeper")
    for number in ("0", "1"):
        live.start("router", number)
        for slot in ("blue", "green"):
            live.start("inference", f"{slot}-{number}")
    live.wait_ready(timeout_s=180)
    load = Load(live, per_s=PER_S, deadline_ms=DEADLINE_MS, seed=SEED)
    time.sleep(10.0)
    begun, faults = now_ms(), []
    with Supervisor(live) as supervisor:
        for kind, fault in script:
            at = now_ms()
            fault(live)
            faults.append({"kind": kind, "from": at})
            print(f"{kind}: {(now_ms() - at) / 1000:.1f} s", flush=True)
            time.sleep(max(0.0, spacing_s - (now_ms() - at) / 1000))
    ended = now_ms()
    load.stop()
    found = live.settled(load)
    state = live.routing()
    revoked = set(state.revoked) if state is not None else set()
    answers = {answer.query_id: answer for _, answer in found.answers}
    queries = []
    for query_id, asked in load.sent.items():
        answer = answers.get(query_id)
        is_good = answer is not None and answer.error is None and answer.release not in revoked
        queries.append([asked, answer.answered_at - asked if answer is not None and is_good else None])
    return {
        "from": begun,
        "to": ended,
        "faults": faults,
        "spacing_ms": int(1000 * spacing_s),
        "restarts": supervisor.restarts(),
        "lost": found.lost,
        "doubled": found.doubled,
        "queries": queries,
    }


def figures(samples: Mapping[str, Any]) -> dict[str, Any]:
    """From the samples alone."""
    queries = [
        (asked, wait) for asked, wait in samples["queries"] if samples["from"] <= asked < samples["to"]
    ]
    answered = sum(wait is not None and wait <= DEADLINE_MS for _, wait in queries)
    down: dict[str, list[int]] = {}
    for fault in samples["faults"]:
        # Those asked just before a fault suffer from it too.
        begin, end = fault["from"] - OBJECTIVE_MS, fault["from"] + samples["spacing_ms"] - OBJECTIVE_MS
        seconds = {
            asked // 1000
            for asked, wait in samples["queries"]
            if begin <= asked < end and (wait is None or wait > OBJECTIVE_MS)
        }
        down.setdefault(fault["kind"], []).append(len(seconds))
    a_day = sum(sum(each) / len(each) for each in down.values())
    return {
        "answered_share": answered / len(queries),
        "projected_availability": 1 - a_day / DAY_S,
        "lost": len(samples["lost"]),
        "doubled": len(samples["doubled"]),
        "faults": len(samples["faults"]),
        "kinds": len(down),
        "down_s_by_kind": {kind: sum(each) / len(each) for kind, each in down.items()},
        **({"restarts": sum(samples["restarts"].values())} if "restarts" in samples else {}),
        "queries": len(queries),
        "minutes": round((samples["to"] - samples["from"]) / 60_000, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half of the script, faster")
    is_quick, load = parser.parse_args().quick, os.getloadavg()
    with tempfile.TemporaryDirectory() as folder, LiveSystem(Path(folder), brokers=3) as live:
        script = SCRIPT[:6] if is_quick else SCRIPT
        samples = measure(live, spacing_s=15 if is_quick else 51, script=script)
    found = write("availability", seeds=[SEED], samples=samples, goals=GOALS, load_before=load)
    return 0 if found["lost"] == found["doubled"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
