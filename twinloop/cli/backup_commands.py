"""`backup` and `restore`: an installation as plain files, and back."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.installation_commands import checked_profile
from twinloop.cli.output import print_json, say, short
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError
from twinloop.stack.home import Home

if TYPE_CHECKING:
    from twinloop.backup.manifest import Backup

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the back-up.")]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: twinloop backup /backups/2026-11-28")(backup)
    app.command(epilog="Example: twinloop restore /backups/2026-11-28 --profile kafka --home .twinloop")(
        restore
    )


def backup(
    folder: FolderArgument,
    key: Annotated[str, typer.Option("--key", help="Id of the key that signs the back-up.")] = "operator-1",
    with_private_keys: Annotated[
        bool,
        typer.Option(
            "--with-private-keys", help="Also copy the private keys: whoever has the files can sign."
        ),
    ] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write log, store, public keys and settings to a new folder, while the services run; signed, every file digested.

    Exits 1 where the store lacks something the log names, 3 where Kafka or the store is silent or the disk is full.
    """
    from twinloop.backup.taking import BackupPlan, take_backup

    connection = Connection(home, config)
    plan = BackupPlan(connection.settings, connection.files, folder, with_private_keys=with_private_keys)
    made = take_backup(
        plan,
        connection.signer(key),
        now_ms=SystemClock().now_ms(),
        software=_software(),
        say=_silent if as_json else say,
    )
    if as_json:
        print_json({"folder": str(folder), **made.model_dump(mode="json", exclude={"files", "partitions"})})
        return
    size = sum(entry.size for entry in made.files)
    say(
        f"{folder}: complete, {len(made.files)} files, {size / (1 << 20):.1f} MiB, epoch {made.epoch}, signed by {key}"
    )
    if not with_private_keys:
        say("private keys are not in it: keep them where your secrets are kept")


def restore(
    folder: FolderArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Read and verify every file of the back-up; change nothing.")
    ] = False,
    profile: Annotated[
        str,
        typer.Option(
            "--profile", help="kafka starts servers in --home for this; external finds running ones."
        ),
    ] = "external",
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a back-up into an empty installation: same records at the same offsets, same blobs, same keys.

    Exits 1 for a back-up that is incomplete, damaged or wrongly signed, 2 where the installation is not empty,
    3 where Kafka, Redis or the store is silent.
    """
    from twinloop.backup.restoring import check_backup

    if check:
        trusted = Connection(home, config).settings.keys.public_path if home or config else None
        _report(folder, check_backup(folder, trusted), verb="sound", as_json=as_json)
    elif checked_profile(profile) == "kafka":
        if config:
            raise ConfigError(
                "--config names servers that run elsewhere: leave it out, or use --profile external"
            )
        _restore_at_home(folder, Home(home) if home is not None else Home.default(), as_json=as_json)
    else:
        _restore(folder, Connection(home, config), as_json=as_json)


def _restore_at_home(folder: Path, place: Home, *, as_json: bool) -> None:
    from twinloop.process import unwound_on_sigterm
    from twinloop.stack.installation import Installation, Plan

    installation = Installation(Plan(home=place, profile="kafka"), _silent if as_json else say)
    with unwound_on_sigterm(), installation.servers_alone():
        _restore(folder, Connection(place.root, None), as_json=as_json)


def _restore(folder: Path, connection: Connection, *, as_json: bool) -> None:
    from twinloop.backup.restoring import missing_private_keys, restore_backup

    found = restore_backup(folder, connection.settings, _silent if as_json else say)
    _report(folder, found, verb="restored", as_json=as_json)
    missing = missing_private_keys(connection.settings)
    if missing and not as_json:
        say(
            f"put the private keys {', '.join(missing)} into {connection.settings.keys.folder} before the services "
            "start; for a key that is lost, make one under a new id (docs/operations.md, Rotate keys)"
        )


def _report(folder: Path, found: Backup, *, verb: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                verb: True,
                "folder": str(folder),
                **found.model_dump(mode="json", exclude={"files", "partitions"}),
            }
        )
    else:
        say(
            f"{folder}: {verb}, epoch {found.epoch}, {short(found.active_release)} served, signed by {found.key_id}"
        )


def _software() -> str:
    try:
        return version("nexus-twinloop")
    except PackageNotFoundError:
        return "0.0.0+uninstalled"


def _silent(_line: str) -> None:
    """Programs get one object at the end."""
