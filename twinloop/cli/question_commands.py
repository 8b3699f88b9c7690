"""`ask`, `rate`, `feedback`: what applications and collectors do, by hand."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, cast

import typer

from schemas.answers import Answer
from schemas.event import DOMAINS
from schemas.feedback import Rating
from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.exit_status import FAILED
from twinloop.cli.output import print_json, say, short
from twinloop.errors import ConfigError

LAST_ANSWER = "last-answer.json"


def register(app: typer.Typer) -> None:
    app.command(epilog='Example: twinloop ask "What is the notice period of contract Zorvan?"')(ask)
    app.command(epilog='Example: twinloop rate down --correction "42 days [law-0042]"')(rate)
    app.command(epilog="Example: twinloop feedback 3f2a91c0")(feedback)


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    domain: Annotated[
        str | None, typer.Option(help="law, med, fin or gen; the router decides where absent.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Sticky unit of the canary, such as a session.")] = None,
    deadline_ms: Annotated[int, typer.Option(help="After this the answer is a deadline error.")] = 10_000,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish one question and wait for its answer; exits 1 where the answer is an error."""
    from twinloop.client import Client
    from twinloop.telemetry.tracing import open_tracer

    connection = Connection(home, config)
    if domain is not None and domain not in DOMAINS:
        raise ConfigError(f"--domain {domain!r}: use one of {', '.join(DOMAINS)}")
    with ExitStack() as stack:
        tracer = open_tracer("cli", "ask", os.environ)
        if tracer is not None:
            stack.callback(tracer.close)
        client = stack.enter_context(
            Client(connection.settings.kafka, connection.topics, name="cli", tracer=tracer)
        )
        answer = client.ask(question, domain=domain, subject=subject, deadline_ms=deadline_ms)
    _remember(connection, answer, question)
    if as_json:
        print_json(answer.model_dump(mode="json"))
    else:
        _show(answer)
    if answer.error is not None:
        raise typer.Exit(FAILED)


def rate(
    rating: Annotated[str, typer.Argument(help="up or down.")],
    correction: Annotated[
        str | None, typer.Option(help="What the answer should have been, with its citation.")
    ] = None,
    rater: Annotated[str, typer.Option(help="Who rates.")] = "cli",
    answer_file: Annotated[
        Path | None,
        typer.Option(help="JSON of {answer, question}; the last `ask` of this installation by default."),
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rate the last answer, or correct it; prints the feedback's id."""
    from twinloop.client import Client

    connection = Connection(home, config)
    if rating not in ("up", "down"):
        raise ConfigError(f"rating {rating!r}: use up or down")
    path = answer_file or connection.home.root / LAST_ANSWER
    if not path.exists():
        raise ConfigError(f"{path}: no answer to rate; ask something first")
    last = json.loads(path.read_text(encoding="utf-8"))
    with Client(connection.settings.kafka, connection.topics, name="cli") as client:
        given = client.rate(
            Answer.model_validate(last["answer"]),
            question=last["question"],
            rater=rater,
            rating=cast(Rating, rating),
            correction=correction,
        )
        client.flush()
    if as_json:
        print_json(given.model_dump(mode="json"))
    else:
        say(f"feedback {given.id} published; `twinloop feedback {given.id}` tells what becomes of it")


def feedback(
    feedback_id: Annotated[str, typer.Argument(help="The id `rate` printed.")],
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What became of one feedback: accepted, rejected, quarantined, counted or trained; exits 1 where unknown."""
    from twinloop.client import Client

    connection = Connection(home, config)
    with Client(connection.settings.kafka, connection.topics, name="cli") as client:
        status = client.feedback_status(feedback_id)
    if status is None:
        if as_json:
            print_json({"feedback_id": feedback_id, "status": None})
        else:
            say(f"feedback {feedback_id}: no status yet")
        raise typer.Exit(FAILED)
    if as_json:
        print_json(status.model_dump(mode="json"))
        return
    detail = f" ({status.reason})" if status.reason else ""
    release = f", release {short(status.release)}" if status.release else ""
    say(f"feedback {feedback_id}: {status.status}{detail}{release}")


def _show(answer: Answer) -> None:
    if answer.error is not None:
        say(f"error {answer.error.kind}: {answer.error.detail}")
    else:
        say(answer.text or "")
        for citation in answer.citations:
            say(f"  [{citation.document_id}] {citation.title or citation.source}")
    total = f"{answer.timings.total_ms:.0f} ms" if answer.timings else "no timings"
    say(
        f"  {answer.domain} · {answer.slot} · release {short(answer.release)} · epoch {answer.epoch} · {total}"
    )


def _remember(connection: Connection, answer: Answer, question: str) -> None:
    """Keep the last answer for `rate`; readable by its owner only, because it holds the question."""
    if not connection.home.root.is_dir():
        return
    path = connection.home.root / LAST_ANSWER
    path.write_text(
        json.dumps({"answer": answer.model_dump(mode="json"), "question": question}), encoding="utf-8"
    )
    path.chmod(0o600)
