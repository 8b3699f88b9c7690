"""`replay`: the gatekeeper's decisions derived again, from its log or from a file of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.errors import ConfigError
from twinloop.stack.program import pass_through

GATEKEEPER_REPLAY = "services.gatekeeper.replay"


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: twinloop replay --events day.jsonl --policy configs/gatekeeper.yaml --json")(
        replay
    )


def replay(
    from_log: Annotated[
        bool,
        typer.Option(
            "--from-log", help="Derive every decision from gate-inputs and compare it with the log."
        ),
    ] = False,
    events: Annotated[
        Path | None, typer.Option("--events", help="Judge this file of events offline; JSON Lines.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Thresholds for --events; the shipped ones by default.")
    ] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="QA probes that grade the answers in --events.")
    ] = None,
    after: Annotated[
        float, typer.Option("--after", help="Seconds the judge watches on after the last event.")
    ] = 0.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive decisions again: exits 1 where the log says otherwise; with --events, ask "what if?"."""
    if from_log == (events is not None):
        raise ConfigError("say either --from-log or --events FILE; `twinloop replay --help` explains both")
    arguments = ["--json"] if as_json else []
    if events is not None:
        named = {"--events": events, "--policy": policy, "--probes": probes}
        for option, path in named.items():
            arguments += [option, str(path)] if path is not None else []
        arguments += ["--after", str(after)]
    else:
        arguments += Connection(home, config).arguments
    status = pass_through(GATEKEEPER_REPLAY, arguments)
    if status:
        raise typer.Exit(status)
