"""`ab`: compare the active release with one that served before, on users."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from schemas.commands import Command
from schemas.decisions import Decision
from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.exit_status import FAILED
from twinloop.cli.operation_commands import (
    ActorOption,
    KeyOption,
    ReasonOption,
    TimeoutOption,
    logged_decisions,
    say_outcome,
)
from twinloop.cli.orders import give_order, make_order
from twinloop.cli.output import print_json, print_table, say, short

ab = typer.Typer(help="A/B tests between two releases that served.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    ab.command("start", epilog="Example: twinloop ab start --share 10 --units 2000 --reason shorter-answers")(
        start
    )
    ab.command("stop", epilog="Example: twinloop ab stop --reason complaints")(stop)
    ab.command("report", epilog="Example: twinloop ab report --json")(report)
    app.add_typer(ab, name="ab")


def start(
    release: Annotated[
        str | None, typer.Argument(help="The release to compare; the previous one by default.")
    ] = None,
    share: Annotated[
        float, typer.Option(help="Percent of users that it answers, 0.01 to 10.", min=0.01, max=10)
    ] = 10.0,
    units: Annotated[
        int, typer.Option(help="Users counted for it before the test ends, fixed in advance.", min=100)
    ] = 2000,
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a release that served before answer a share of users; it ends with a report and promotes nothing."""
    connection = Connection(home, config)
    parameters = {"basis_points": round(share * 100), "units": units}
    order = make_order(
        connection, "ab_start", actor=actor, key_id=key, reason=reason, release=release, parameters=parameters
    )
    _give(connection, order, timeout=timeout, as_json=as_json)


def stop(
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the running test now: the active release answers everybody, and what was seen is reported."""
    connection = Connection(home, config)
    order = make_order(connection, "ab_stop", actor=actor, key_id=key, reason=reason)
    _give(connection, order, timeout=timeout, as_json=as_json)


def report(
    every: Annotated[bool, typer.Option("--all", help="Every test there was, not only the last.")] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What ended tests found: the gates' evidence, and the classical tests; exits 1 where there was none."""
    ended = [each for each in logged_decisions(Connection(home, config)) if each.kind == "ab_end"]
    for decision in ended if every else ended[-1:]:
        if as_json:
            print_json(decision.model_dump(mode="json"))
        else:
            _show(decision)
    if not ended:
        if not as_json:
            say("no A/B test has ended; `twinloop watch` shows one that runs")
        raise typer.Exit(FAILED)


def _give(connection: Connection, order: Command, *, timeout: float, as_json: bool) -> None:
    say_outcome(order.action, give_order(connection, order, timeout_s=timeout), as_json=as_json)


def _show(decision: Decision) -> None:
    evidence: dict[str, Any] = decision.evidence
    size = "reached" if evidence["units_reached"] else "NOT reached: the fixed-n tests below do not hold"
    say(f"{short(decision.release)} beside {short(evidence['active'])}, ended by {decision.reason}")
    say(f"  size {evidence['units']} units, {size}")
    say("  valid at any moment of looking:")
    for gate in evidence["verdict"]["gates"]:
        if gate["kind"] in ("abort", "promote"):
            say(f"    {gate['kind']:<8}{gate['line']}")
    found = evidence["fixed_n"]
    if found is None:
        say("  fixed-n tests: no data in both arms")
        return
    rows = [
        {"arm": "this release", "errors": found["x_s"], "units": found["n_s"]},
        {"arm": "active", "errors": found["x_a"], "units": found["n_a"]},
    ]
    print_table(f"  fixed-n tests, {found['label']}", rows)
    say(f"  {found['line']}")
