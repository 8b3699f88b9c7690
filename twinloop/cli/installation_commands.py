"""`up`, `init`, `demo`, `doctor`, `keys`: an installation on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.exit_status import FAILED
from twinloop.cli.output import print_json, print_table, say
from twinloop.errors import ConfigError
from twinloop.process import StopSignal, unwound_on_sigterm
from twinloop.stack.home import Home

if TYPE_CHECKING:
    from twinloop.stack.backend import Profile

ProfileOption = Annotated[
    str,
    typer.Option("--profile", help="embedded, kafka (real servers of its own) or external (named servers)."),
]
keys = typer.Typer(help="Signing keys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: twinloop up --profile kafka")(up)
    app.command(epilog="Example: twinloop init --config configs/profiles/compose.yaml")(init)
    app.command(epilog="Example: twinloop demo --scenario redis-loss")(demo)
    app.command(epilog="Example: twinloop doctor --json")(doctor)
    keys.command("init", epilog="Example: twinloop keys init --home .twinloop")(keys_init)
    app.add_typer(keys, name="keys")


def up(
    profile: ProfileOption = "embedded",
    documents: Annotated[Path, typer.Option(help="JSONL of documents for the first indexes.")] = Path(
        "configs/starter/documents.jsonl"
    ),
    routers: Annotated[int, typer.Option(min=1, help="Router processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Inference processes a slot.")] = 1,
    bootstrap_servers: Annotated[str, typer.Option(help="Kafka, with --profile external.")] = "",
    redis_url: Annotated[str, typer.Option(help="Redis, with --profile external.")] = "",
    configs: Annotated[Path, typer.Option(help="Folder of the configuration files.")] = Path("configs"),
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the admin API and its page; 0 takes a free one.")
    ] = 8085,
    with_api: Annotated[
        bool, typer.Option("--api/--no-api", help="Serve the admin API and its page.")
    ] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start every service of an installation on this machine and keep it running until interrupted."""
    from twinloop.stack.installation import Installation, Plan

    place = Home(home) if home is not None else Home.default()
    plan = Plan(
        home=place,
        profile=checked_profile(profile),
        configs=configs,
        documents=documents,
        routers=routers,
        workers_per_slot=workers,
        bootstrap_servers=bootstrap_servers,
        redis_url=redis_url,
        api_port=api_port if with_api else None,
    )
    tell = _as_json if as_json else say
    stop = StopSignal.installed()
    with Installation(plan, tell) as installation:
        if as_json:
            print_json({"event": "up", "home": str(place.root), **Connection(place.root, None).run()})
        else:
            for line in _hints(place, installation.api_address):
                say(line)
        while not stop.wait(1.0):
            pass
        tell("stopping")


def _as_json(line: str) -> None:
    print_json({"event": "progress", "line": line})


def _hints(place: Home, api: str | None) -> Iterator[str]:
    """What to do next, in lines that can be copied."""
    from twinloop.api_tokens import TOKENS_FILE, read_tokens

    yield f"up: ask with `twinloop ask --home {place.root}`, follow with `twinloop watch --home {place.root}`"
    if api is None:
        return
    yield f"operations page and API: {api}"
    if not read_tokens(place.keys / TOKENS_FILE).entries:
        yield f"no token yet: {_token_hint(place)}"


def demo(
    profile: ProfileOption = "embedded",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with law.jsonl, med.jsonl, fin.jsonl, gen.jsonl: run on real data."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("build/demo"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the installation's folder for inspection.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer lessons and no harmful candidates, in half the time.")
    ] = False,
    scenario: Annotated[
        str | None,
        typer.Option(help="Show one defence instead: poison, slow-shadow, redis-loss or bad-rules."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The whole loop in a few minutes: learn, examine, canary, promote, stop two harmful candidates, roll back.

    With --scenario: one fault, one defence, measured; status 1 where it did not hold.
    """
    tell = (lambda _line: None) if as_json else say
    if scenario is not None:
        if data is not None or quick:
            raise ConfigError("--scenario has material of its own: leave --data and --quick out")
        _scenario(scenario, tell, profile=checked_profile(profile), output=output, keep=keep, as_json=as_json)
        return
    from twinloop.demo.run import DemoPlan, run_demo

    plan = DemoPlan(profile=checked_profile(profile), data=data, output=output, keep=keep, quick=quick)
    with unwound_on_sigterm():
        report = run_demo(plan, tell)
    if as_json:
        print_json(report.document)
    if report.problems:
        raise typer.Exit(1)


def _scenario(
    name: str, tell: Callable[[str], None], *, profile: Profile, output: Path, keep: bool, as_json: bool
) -> None:
    from twinloop.demo.scenarios.run import run_scenario

    with unwound_on_sigterm():
        report = run_scenario(name, tell, output=output, profile=profile, keep=keep)
    if as_json:
        print_json(report.document)
    if report.problems:
        raise typer.Exit(FAILED)


def init(
    configs: Annotated[Path, typer.Option(help="Folder of the configuration files.")] = Path("configs"),
    documents: Annotated[Path, typer.Option(help="JSONL of documents for the first indexes.")] = Path(
        "configs/starter/documents.jsonl"
    ),
    output: Annotated[
        Path | None, typer.Option(help="Settings file to write, that tells the gatekeeper the first release.")
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare brokers, keys and store that run elsewhere: topics, missing keys, the first release. Safe to repeat."""
    import yaml

    from twinloop.bus.admin import KafkaAdmin
    from twinloop.signing import create_keys
    from twinloop.stack.first_release import make_first_release
    from twinloop.stack.installation import KEYS

    connection = Connection(home, config)
    settings = connection.settings
    create_keys(settings.keys.folder, KEYS)
    admin = KafkaAdmin(settings.kafka)
    admin.wait_ready(60)
    admin.ensure_topics(connection.topics.specs(), replication_factor=settings.topics.replication_factor)
    release = make_first_release(
        [configs / "trainer.yaml", *(config or [connection.home.profile])], documents, {}
    )
    if output is not None:
        output.write_text(yaml.safe_dump({"gatekeeper": {"bootstrap_release": release}}), encoding="utf-8")
    if as_json:
        print_json(
            {
                "release": release,
                "keys": str(settings.keys.folder),
                "topics": [spec.name for spec in connection.topics.specs()],
                "bootstrap_file": str(output) if output is not None else None,
            }
        )
        return
    say(f"topics are there, keys are in {settings.keys.folder}, the first release is {release}")
    say(f"a token for the API: {_token_hint(connection.home)}")


def doctor(home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at versions, keys, brokers, Redis, clock, store and processes, and say how to mend what is wrong.

    Exits 1 where something is bad; a warning is none.
    """
    from dataclasses import asdict

    from twinloop.cli.doctor_checks import look

    found = []
    for finding in look(Connection(home, config)):
        found.append(finding)
        if as_json:
            print_json(asdict(finding))
    if not as_json:
        print_table("doctor", [asdict(finding) for finding in found])
    if any(finding.status == "bad" for finding in found):
        raise typer.Exit(FAILED)


def keys_init(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make the key pairs an installation needs; existing ones are kept."""
    from twinloop.signing import create_keys
    from twinloop.stack.installation import KEYS

    place = Home(home) if home is not None else Home.default()
    place.create()
    public = create_keys(place.keys, KEYS)
    if as_json:
        print_json({"public_file": str(public), "keys": {name: list(roles) for name, roles in KEYS.items()}})
        return
    say(
        f"{public}: {len(KEYS)} keys; give this file to every process, and each private key to its owner only"
    )
    say(f"a token for the API: {_token_hint(place)}")


def _token_hint(place: Home) -> str:
    return f"`twinloop tokens add operator-1 --role operator --home {place.root}` makes one and shows it once"


def checked_profile(profile: str) -> Profile:
    if profile not in ("embedded", "kafka", "external"):
        raise ConfigError(f"--profile {profile!r}: use embedded, kafka or external")
    return cast("Profile", profile)
