"""`import`: documents and questions from published files into the topics."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.exit_status import FAILED
from twinloop.cli.output import print_json, say
from twinloop.clock import SystemClock
from twinloop.importing.importer import Imported, change_of, import_files
from twinloop.importing.rows import Terms

_REFUSALS_SHOWN = 10


def register(app: typer.Typer) -> None:
    app.command("import", epilog="Example: twinloop import jsonl law.jsonl fin.jsonl --pairs pairs.jsonl")(
        import_data
    )


def import_data(
    kind: Annotated[str, typer.Argument(help="jsonl, legalbench, medqa, medquad, finqa or tatqa.")],
    paths: Annotated[list[Path], typer.Argument(help="Files or folders as their publishers ship them.")],
    licence: Annotated[str, typer.Option(help="Licence of rows that do not name one.")] = "",
    publisher: Annotated[str, typer.Option(help="Publisher of rows that do not name one.")] = "",
    source: Annotated[str, typer.Option(help="Source of rows that do not name one.")] = "",
    domain: Annotated[str, typer.Option(help="Domain of rows that do not name one.")] = "",
    pairs: Annotated[
        Path | None, typer.Option(help="Also write the questions and answers here, as JSONL.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and report; publish nothing.")] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish documents with their licence and provenance; rows without either are refused and named."""
    now_ms = SystemClock().now_ms()
    terms = Terms(retrieved_at=now_ms, source=source, licence=licence, publisher=publisher, domain=domain)
    found = import_files(paths, kind=kind, terms=terms)
    if not dry_run:
        _publish(found, Connection(home, config), now_ms)
    if pairs is not None:
        pairs.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in found.pairs), encoding="utf-8")
    counts = {
        "documents": dict(Counter(document.domain for document in found.documents)),
        "pairs": dict(Counter(pair.domain for pair in found.pairs)),
        "refused": len(found.refused),
        "published": not dry_run,
    }
    if as_json:
        print_json(counts)
    else:
        _report(found, counts)
    if not found.documents and not found.pairs:
        raise typer.Exit(FAILED)


def _publish(found: Imported, connection: Connection, now_ms: int) -> None:
    from rich.console import Console
    from rich.progress import track

    from twinloop.client import Client

    progress = Console(stderr=True)

    with Client(connection.settings.kafka, connection.topics, name="import") as client:
        for document in track(found.documents, description="publishing", transient=True, console=progress):
            client.change(change_of(document, changed_at=now_ms))
        client.flush(60)


def _report(found: Imported, counts: dict[str, object]) -> None:
    verb = "published" if counts["published"] else "read"
    say(
        f"{verb} {len(found.documents)} documents, {len(found.pairs)} questions; {len(found.refused)} rows refused"
    )
    for refused in found.refused[:_REFUSALS_SHOWN]:
        say(f"  {refused}")
    if len(found.refused) > _REFUSALS_SHOWN:
        say(f"  and {len(found.refused) - _REFUSALS_SHOWN} more")
