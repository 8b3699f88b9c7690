"""`pr`: changes of router rules and prompt, proposed by one person and approved by another."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from schemas.changes import ChangeStatus, PatchOperation, RouteReport
from twinloop.changes.change_log import KnownChange
from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.operation_commands import TimeoutOption
from twinloop.cli.output import print_json, say, short
from twinloop.clock import SystemClock
from twinloop.errors import ConfigError

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the log for ever.")]
ActorOption = Annotated[str, typer.Option("--actor", help="Who says it.")]
KeyOption = Annotated[str, typer.Option("--key", help="Id of the key that signs it.")]
NameArgument = Annotated[str, typer.Argument(help="The change's id, as `pr list` shows it.")]
pr = typer.Typer(
    help="Changes of router rules and prompt, reviewed by a second person.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    pr.command(
        "propose",
        epilog='Example: twinloop pr propose --set /rules/domains/law/keywords/escrow=2 --reason "escrow is law"',
    )(propose)
    pr.command("list", epilog="Example: twinloop pr list --json")(show_all)
    pr.command("show", epilog="Example: twinloop pr show pr-3f2a91c07b5e")(show)
    pr.command(
        "approve",
        epilog='Example: twinloop pr approve pr-3f2a91c07b5e --reason "report read" --key approver-1',
    )(approve)
    pr.command("reject", epilog='Example: twinloop pr reject pr-3f2a91c07b5e --reason "moves too much"')(
        reject
    )
    app.add_typer(pr, name="pr")


def propose(
    patch: Annotated[
        Path | None, typer.Argument(help="JSON Patch (RFC 6902) of {rules, prompt}; - reads standard input.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="PATH=VALUE, a JSON value; repeatable, instead of a file."),
    ] = None,
    removals: Annotated[
        list[str] | None, typer.Option("--remove", help="PATH to take out; repeatable, instead of a file.")
    ] = None,
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose a change of the active release's rules or prompt; the trainer replays it over recorded queries."""
    from twinloop.changes.signed import signed_proposal
    from twinloop.cli.change_desk import active_documents, find_change, give

    steps = _steps(patch, assignments or [], removals or [])
    connection = Connection(home, config)
    proposal = signed_proposal(
        connection.signer(key),
        steps,
        change=f"pr-{uuid.uuid4().hex[:12]}",
        author=actor,
        base=active_documents(connection),
        reason=reason,
        via="cli",
        now_ms=SystemClock().now_ms(),
    )
    give(connection, proposal, timeout_s=timeout)
    _tell(find_change(connection, proposal.id), as_json)


def show_all(home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every proposed change, newest first, and how far it has come."""
    from twinloop.cli.change_desk import known_changes

    changes = known_changes(Connection(home, config)).newest_first()
    if as_json:
        for known in changes:
            print_json(_document(known))
        return
    for known in changes:
        say(_line(known))
    if not changes:
        say("changes: none")


def show(
    name: NameArgument, home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """One change: its patch, what it would move, who said what, what became of it."""
    from twinloop.cli.change_desk import find_change

    _tell(find_change(Connection(home, config), name), as_json)


def approve(
    name: NameArgument,
    reason: ReasonOption = "manual",
    actor: ActorOption = "approver-1",
    key: KeyOption = "approver-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve another person's change: it becomes a release, which is examined and judged like any other."""
    _review(name, "approve", reason, actor, key, timeout, Connection(home, config), as_json)


def reject(
    name: NameArgument,
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject a change, or withdraw one's own, while nothing is composed of it yet."""
    _review(name, "reject", reason, actor, key, timeout, Connection(home, config), as_json)


def _review(
    name: str,
    verdict: Literal["approve", "reject"],
    reason: str,
    actor: str,
    key: str,
    timeout: float,
    connection: Connection,
    as_json: bool,
) -> None:
    from twinloop.changes.signed import signed_review
    from twinloop.cli.change_desk import find_change, give

    review = signed_review(
        connection.signer(key),
        find_change(connection, name).proposal,
        verdict,
        nonce=uuid.uuid4().hex,
        reviewer=actor,
        reason=reason,
        via="cli",
        now_ms=SystemClock().now_ms(),
    )
    give(connection, review, timeout_s=timeout)
    _tell(find_change(connection, name), as_json)


def _steps(patch: Path | None, assignments: list[str], removals: list[str]) -> list[PatchOperation]:
    """The patch as it was given; raises ConfigError naming the operation at fault."""
    raw: Any = []
    if patch is not None:
        text = sys.stdin.read() if str(patch) == "-" else _text(patch)
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"{patch}: not JSON: {error}") from error
        if not isinstance(raw, list):
            raise ConfigError(f"{patch}: a JSON Patch is a list of operations")
    raw = [*raw, *map(_assigned, assignments), *({"op": "remove", "path": path} for path in removals)]
    if not raw:
        raise ConfigError("name a file with a JSON Patch, or say --set PATH=VALUE or --remove PATH")
    steps = []
    for number, step in enumerate(raw, start=1):
        try:
            steps.append(PatchOperation.model_validate(step))
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, fault["loc"])) or "operation"
            raise ConfigError(f"operation {number}: {where}: {fault['msg']}") from error
    return steps


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _assigned(assignment: str) -> dict[str, Any]:
    """`add` sets a member that is there, too (RFC 6902, 4.1)."""
    path, equals, value = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set {assignment!r}: say PATH=VALUE")
    try:
        return {"op": "add", "path": path, "value": json.loads(value)}
    except ValueError:
        return {"op": "add", "path": path, "value": value}


def _document(known: KnownChange) -> dict[str, Any]:
    return {
        "proposal": known.proposal.model_dump(mode="json"),
        "status": known.status.model_dump(mode="json") if known.status else None,
        "reviews": [review.model_dump(mode="json") for review in known.reviews],
    }


def _line(known: KnownChange) -> str:
    """One line a change, so that its id can be copied whole."""
    status, proposal = known.status, known.proposal
    report = status.report if status else None
    moved = f", moves {report.moved} of {report.queries}" if report else ""
    approved = f", approved by {status.approved_by}" if status and status.approved_by else ""
    release = f", release {short(status.release)}" if status and status.release else ""
    stage = status.stage if status else "unexamined"
    return f"{proposal.id}  {stage:<10}  by {proposal.author}{approved}{moved}{release}: {proposal.reason}"


def _tell(known: KnownChange, as_json: bool) -> None:
    if as_json:
        print_json(_document(known))
        return
    proposal, status = known.proposal, known.status
    say(f"{proposal.id} by {proposal.author}: {proposal.reason}")
    say(f"  {_stage(status)}")
    for step in proposal.patch:
        say(f"  {step.op} {step.path}" + ("" if step.op == "remove" else f" = {json.dumps(step.value)}"))
    if status is not None and status.report is not None:
        for line in _report(status.report):
            say(f"  {line}")
    for review in known.reviews:
        say(f"  {review.reviewer} wants to {review.verdict}: {review.reason}")


def _stage(status: ChangeStatus | None) -> str:
    if status is None:
        return "nobody has looked at it yet: is the trainer running?"
    release = f", release {short(status.release)}" if status.release else ""
    return f"{status.stage}{release}: {status.detail}"


def _report(report: RouteReport) -> list[str]:
    lines = [
        f"recorded queries: {report.moved} of {report.queries} would go to another domain"
        + (f"; {report.fixed} more had theirs fixed" if report.fixed else "")
    ]
    lines += [f"  {move.before} -> {move.after}: {move.queries}" for move in report.moves]
    if report.examples:
        lines.append(f"  such as {', '.join(each.id for each in report.examples[:5])}")
    lines.append(
        f"examination: the rules agree with {report.probes_right_before} of {report.probes} probes now, with "
        f"{report.probes_right_after} then"
    )
    if report.unfixed_moved:
        lines.append(f"  {report.unfixed_moved} probes would be answered by another domain")
    if report.prompt_changed:
        lines.append("the prompt changes: any answer may, and only the examination can tell which")
    return lines
