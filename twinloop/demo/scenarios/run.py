"""Runs one scenario: an installation is brought up, disturbed, watched and accounted for, and the report is written."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinloop.clock import SystemClock
from twinloop.demo.run import SEED, installation_for, rescue
from twinloop.demo.scenarios import bad_rules, poison, redis_loss, slow_shadow
from twinloop.demo.scenarios.drill import Counted, Drill, Finding, Say
from twinloop.demo.synthetic import synthetic_material
from twinloop.errors import ConfigError
from twinloop.stack.backend import Profile
from twinloop.stack.home import Home


@dataclass(frozen=True)
class Scenario:
    """One way in which things go wrong, and the defence that has to hold."""

    defence: str
    play: Callable[[Drill], None]


SCENARIOS: Mapping[str, Scenario] = {
    "poison": Scenario("harmful feedback does not reach users", poison.play),
    "slow-shadow": Scenario("a candidate that answers late is taken back", slow_shadow.play),
    "redis-loss": Scenario("the routing key can be lost and comes back", redis_loss.play),
    "bad-rules": Scenario("a routing state nobody signed is not believed", bad_rules.play),
}


@dataclass(frozen=True)
class ScenarioReport:
    """What was expected and seen in one run."""

    scenario: str
    profile: Profile
    findings: tuple[Finding, ...]
    counted: Counted
    seconds: float

    @property
    def problems(self) -> tuple[str, ...]:
        """What did not hold, one line each; no finding at all is a problem too."""
        found = [f"{each.expected}: {each.seen}" for each in self.findings if not each.held]
        if not self.findings:
            found.append("nothing was looked at")
        if self.counted.lost:
            found.append(f"{self.counted.lost} of {self.counted.sent} queries were lost")
        # The embedded broker shows records of transactions that were undone: there a query may be answered twice.
        if self.counted.duplicates and self.profile != "embedded":
            found.append(f"{self.counted.duplicates} of {self.counted.sent} queries were answered twice")
        return tuple(found)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "profile": self.profile,
            "defence": SCENARIOS[self.scenario].defence,
            "held": not self.problems,
            "findings": [asdict(each) for each in self.findings],
            "queries": asdict(self.counted),
            "seconds": self.seconds,
            "problems": list(self.problems),
        }

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"scenario-{self.scenario}.json"
        path.write_text(json.dumps(self.document, indent=2) + "\n", encoding="utf-8")
        return path

    def summary(self) -> list[str]:
        """What a person wants to know, a line each."""
        counted = self.counted
        ending = "the defence held" if not self.problems else "THE DEFENCE DID NOT HOLD"
        return [
            f"{counted.sent} queries, {counted.answers} answers, {counted.errors} told errors, "
            f"{counted.dead_letters} dead letters, {counted.lost} lost, {counted.duplicates} answered twice",
            *(f"NOT AS PROMISED: {problem}" for problem in self.problems),
            f"{self.scenario}: {ending}, {self.seconds:.0f} s in all",
        ]


def run_scenario(
    name: str, say: Say, *, output: Path, profile: Profile = "embedded", keep: bool = False
) -> ScenarioReport:
    """Play one scenario and write its report; raises ConfigError, Transient."""
    if name not in SCENARIOS:
        raise ConfigError(f"--scenario {name!r}: use {', '.join(SCENARIOS)}")
    if profile == "external":
        raise ConfigError("--scenario breaks what it runs on: use --profile embedded or kafka")
    started = time.monotonic()
    say(f"{name}: {SCENARIOS[name].defence}")
    material = synthetic_material(SEED, at_ms=SystemClock().now_ms())
    home = Home(Path(tempfile.mkdtemp(prefix="twinloop-demo-")))
    try:
        with ExitStack() as resources, installation_for(material, home, profile, say) as installation:
            say(f"up after {time.monotonic() - started:.0f} s; everything runs in {home.root}")
            drill = Drill(installation, material, say, seed=SEED)
            resources.push(drill.resources)
            try:
                drill.traffic.start(material.traffic, per_second=material.traffic_per_second / 10)
                SCENARIOS[name].play(drill)
                drill.step("counting")
                counted = drill.count()
            finally:
                drill.close()
    except Exception:
        say(f"the services' logs are in {rescue(home, output)}")
        raise
    finally:
        if not keep:
            shutil.rmtree(home.root, ignore_errors=True)
    report = ScenarioReport(
        name, profile, tuple(drill.findings), counted, round(time.monotonic() - started, 1)
    )
    path = report.write(output)
    for line in ["", *report.summary(), f"report: {path}"]:
        say(line)
    return report
