"""`status`, `watch`, `history`, `releases` and the orders: what people on call do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from schemas.audit import AuditEntry
from schemas.commands import Action
from schemas.decisions import Decision, Progress
from schemas.routing import RoutingState
from twinloop.bus.records import Record
from twinloop.cli.connection import ConfigOption, Connection, HomeOption, JsonOption
from twinloop.cli.exit_status import FAILED
from twinloop.cli.orders import give_order, make_order
from twinloop.cli.output import print_json, print_table, say, short, warn
from twinloop.codec import decode
from twinloop.errors import ConfigError, SignatureError, Transient
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.verification import state_verifier
from twinloop.stack.supervisor import readiness

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the log for ever.")]
ActorOption = Annotated[str, typer.Option("--actor", help="Who gives the order.")]
KeyOption = Annotated[str, typer.Option("--key", help="Id of the key that signs the order.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the gatekeeper.")]
WhatOption = Annotated[
    Literal["training", "canary", "all"],
    typer.Option("--what", help="The trainer's work, the gatekeeper's staging and promoting, or both."),
]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: twinloop status --json")(status)
    app.command(epilog="Example: twinloop watch --from-start")(watch)
    app.command(epilog="Example: twinloop history")(history)
    app.command(epilog="Example: twinloop releases")(releases)
    app.command(epilog="Example: twinloop export 3f2a... build/release")(export)
    app.command(epilog='Example: twinloop rollback --reason "wrong dosages in med"')(rollback)
    app.command(epilog='Example: twinloop promote 3f2a... --reason "reviewed by hand" --key approver-1')(
        promote
    )
    app.command(epilog='Example: twinloop abort --reason "complaints"')(abort)
    app.command(epilog='Example: twinloop pause --reason "incident"')(pause)
    app.command(epilog='Example: twinloop resume --reason "incident over"')(resume)
    app.command(epilog='Example: twinloop approve 3f2a... --reason "reviewed" --key approver-1')(approve)
    app.command(epilog='Example: twinloop train --reason "fresh documents"')(train)


def status(home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What serves now, in which phase, and whether every process is ready; exits 1 where something is not."""
    connection = Connection(home, config)
    state = _routing_state(connection)
    services = {
        name: readiness(int(each["health_port"]))
        for name, each in connection.run().get("services", {}).items()
    }
    if as_json:
        processes = {name: {"ready": ready, "reason": reason} for name, (ready, reason) in services.items()}
        print_json({"state": state.model_dump(mode="json") if state else None, "processes": processes})
    else:
        _show_state(state)
        rows = [
            {"process": name, "ready": "yes" if ready else "NO", "says": reason}
            for name, (ready, reason) in services.items()
        ]
        print_table("processes", rows)
    if state is None or not all(ready for ready, _ in services.values()):
        raise typer.Exit(FAILED)


def watch(
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the first decision there is.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Stop after so many seconds; 0 means never.")] = 0.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decisions and progress as they are logged, one readable line each, until interrupted."""
    import time

    connection = Connection(home, config)
    deadline = time.monotonic() + seconds if seconds > 0 else None
    with connection.log("decisions", from_end=not from_start) as log:
        while deadline is None or time.monotonic() < deadline:
            for record in log.poll(100, 0.2):
                _show_logged(record, as_json=as_json)


def history(home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What served when, who decided, on which numbers."""
    connection = Connection(home, config)
    for decision in logged_decisions(connection):
        if as_json:
            print_json(decision.model_dump(mode="json"))
        else:
            state = decision.state
            served = f"{state.active} serves {short(state.active_release)}"
            by = f"{state.changed_by}, as ordered" if "command" in decision.evidence else state.changed_by
            say(f"{_time(decision.decided_at)}  epoch {decision.epoch:<4} {served}  by {by}")
            say(f"    {decision.line}", about=decision.kind)


def releases(home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every release in the store with its parent and its role now."""
    from twinloop.registry.blobs import open_store
    from twinloop.registry.releases import load_release

    connection = Connection(home, config)
    store, ring, state = open_store(connection.settings.store), connection.ring, _routing_state(connection)
    rows = []
    for release_id in store.list_releases():
        stored = load_release(
            store,
            release_id,
            verify=lambda message, block: ring.verify(message, block.signature, block.key_id),
        )
        rows.append(
            {
                "release": release_id if as_json else short(release_id),
                "parent": stored.release.parent if as_json else short(stored.release.parent),
                "role": _role(state, release_id),
                "rows": sum(stored.evidence.rows.values()),
                "documents": sum(stored.evidence.documents.values()),
                "made": _time(stored.evidence.finished_at),
            }
        )
    rows.sort(key=lambda row: str(row["made"]))
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print_table("releases", rows)


def export(
    release: Annotated[str, typer.Argument(help="The release's id, or its first characters.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a release as plain files: adapters as peft reads them, indexes as faiss does, rules and evidence."""
    from twinloop.registry.blobs import open_store
    from twinloop.registry.export import export_release

    connection = Connection(home, config)
    store, ring = open_store(connection.settings.store), connection.ring
    found = [each for each in store.list_releases() if each.startswith(release)]
    if len(found) != 1:
        raise ConfigError(
            f"{release}: {len(found)} releases in {store.url} begin so; see `twinloop releases`"
        )
    written = export_release(
        store,
        found[0],
        folder,
        verify=lambda message, block: ring.verify(message, block.signature, block.key_id),
    )
    if as_json:
        print_json({"release": found[0], "folder": str(written)})
    else:
        say(f"release {found[0]} is in {written}")


def rollback(
    release: Annotated[
        str | None, typer.Argument(help="Release to restore; the previous one by default.")
    ] = None,
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    break_glass: Annotated[
        bool,
        typer.Option(
            "--break-glass",
            help="Write Redis at once, without Kafka or gatekeeper; needs a reason and that role.",
        ),
    ] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore an earlier release in one write: adapters, indexes and router rules together."""
    if break_glass:
        _by_hand(release, reason, actor, key, Connection(home, config), as_json)
        return
    _order("rollback", release, reason, actor, key, timeout, Connection(home, config), as_json)


def promote(
    release: Annotated[str | None, typer.Argument(help="The staged candidate.")] = None,
    reason: ReasonOption = "manual",
    actor: ActorOption = "approver-1",
    key: KeyOption = "approver-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Promote the staged candidate before its gates have cleared; needs an approver's key."""
    _order("promote", release, reason, actor, key, timeout, Connection(home, config), as_json)


def abort(
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the running examination or canary; the active release stays."""
    _order("abort", None, reason, actor, key, timeout, Connection(home, config), as_json)


def pause(
    what: WhatOption = "canary",
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop staging and promoting, or training, or all of it; serving, rollback triggers and orders go on."""
    _switch("pause", what, reason, actor, key, timeout, Connection(home, config), as_json)


def resume(
    what: WhatOption = "canary",
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo `pause`."""
    _switch("resume", what, reason, actor, key, timeout, Connection(home, config), as_json)


def approve(
    release: Annotated[str | None, typer.Argument(help="The release to approve.")] = None,
    reason: ReasonOption = "manual",
    actor: ActorOption = "approver-2",
    key: KeyOption = "approver-2",
    timeout: TimeoutOption = 60.0,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve what waits for a person, or be the second person of a forced promote."""
    _order("approve", release, reason, actor, key, timeout, Connection(home, config), as_json)


def train(
    reason: ReasonOption = "manual",
    actor: ActorOption = "operator",
    key: KeyOption = "operator-1",
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the trainer to train now on what it has, whatever its schedule says."""
    from twinloop.cli.orders import publish_order

    connection = Connection(home, config)
    order = make_order(connection, "train", actor=actor, key_id=key, reason=reason)
    publish_order(connection, order)
    if as_json:
        print_json({"action": "train", "nonce": order.nonce, "actor": actor, "result": "published"})
        return
    say("order published; `twinloop watch` shows the candidate when it is staged")


def logged_decisions(connection: Connection) -> Iterator[Decision]:
    """Every decision of the log in order; of two with one epoch only the first, which is the one that holds."""
    seen = 0
    with connection.log("decisions") as log:
        for record in log.read_to_end():
            if record.header("ce_type") == Decision.type.encode():
                decision = decode(record, Decision)
                if decision.epoch > seen:
                    seen = decision.epoch
                    yield decision


def _by_hand(
    release: str | None, reason: str, actor: str, key: str, connection: Connection, as_json: bool
) -> None:
    from twinloop.cli.break_glass import publish_kept, roll_back_by_hand

    if reason == "manual":
        raise ConfigError("--break-glass needs --reason: it is all that people will find afterwards")
    state, outcome = roll_back_by_hand(connection, release=release, reason=reason, actor=actor, key_id=key)
    durable = "" if outcome.durable else ", active, not durable"
    if as_json:
        print_json({**state.model_dump(mode="json"), "durable": outcome.durable})
    else:
        say(f"epoch {state.epoch}: {short(state.active_release)} serves again, by hand{durable}")
    try:
        publish_kept(connection)
    except Transient:
        warn(f"Kafka is silent: the reason is kept in {connection.home.root / 'break-glass.jsonl'}")


def _switch(
    action: Literal["pause", "resume"],
    what: Literal["training", "canary", "all"],
    reason: str,
    actor: str,
    key: str,
    timeout: float,
    connection: Connection,
    as_json: bool,
) -> None:
    """The trainer obeys an order of its own, which nobody answers; the gatekeeper's comes back as a decision."""
    from twinloop.cli.orders import publish_order

    if what in ("training", "all"):
        order = make_order(
            connection,
            action,
            actor=actor,
            key_id=key,
            reason=reason,
            parameters={"what": "training"},
        )
        publish_order(connection, order)
        if what == "training" and as_json:
            print_json({"action": action, "nonce": order.nonce, "actor": actor, "result": "published"})
        elif not as_json:
            say(f"{action} of training: order published")
    if what in ("canary", "all"):
        _order(action, None, reason, actor, key, timeout, connection, as_json)


def _order(
    action: Action,
    release: str | None,
    reason: str,
    actor: str,
    key: str,
    timeout: float,
    connection: Connection,
    as_json: bool,
) -> None:
    from twinloop.cli.break_glass import publish_kept

    order = make_order(connection, action, actor=actor, key_id=key, reason=reason, release=release)
    outcome = give_order(connection, order, timeout_s=timeout)
    publish_kept(connection)
    say_outcome(action, outcome, as_json=as_json)


def say_outcome(action: Action, outcome: Decision | AuditEntry, *, as_json: bool) -> None:
    """Print what an order led to: the decision's line, or what became of it without one."""
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    elif isinstance(outcome, Decision):
        say(f"epoch {outcome.epoch}: {outcome.line}")
    else:
        say(f"{action}: {outcome.result} {outcome.detail}")


def _routing_state(connection: Connection) -> RoutingState | None:
    store = RedisRoutingStore(connection.settings.redis.model_copy(update={"timeout_ms": 2000}))
    try:
        raw = store.read()
    finally:
        store.close()
    if raw is None:
        return None
    try:
        state = RoutingState.model_validate_json(raw)
        state_verifier(connection.ring)(state)
    except ValidationError as error:
        raise ConfigError(
            f"the routing key in Redis holds no routing state ({error.error_count()} fields are wrong); a gatekeeper "
            "puts the last logged state back within seconds: start one, or see who else writes the key"
        ) from error
    except SignatureError as error:
        raise ConfigError(f"the routing key in Redis is not to be believed: {error}") from error
    return state


def _show_state(state: RoutingState | None) -> None:
    if state is None:
        say("no routing state yet: the gatekeeper has not logged its first decision")
        return
    say(f"epoch {state.epoch} · {state.phase} · {state.active} serves release {short(state.active_release)}")
    share = f", canary {state.canary.basis_points / 100:g} %" if state.canary else ""
    say(f"shadow {state.shadow}: release {short(state.shadow_release)}{share}")
    say(f"previous {short(state.previous)} · revoked {len(state.revoked)} · changed by {state.changed_by}")


def _show_logged(record: Record, *, as_json: bool) -> None:
    is_progress = record.header("ce_type") == Progress.type.encode()
    event: Decision | Progress = decode(record, Progress) if is_progress else decode(record, Decision)
    if as_json:
        print_json(event.model_dump(mode="json"))
    elif isinstance(event, Decision):
        say(f"{_time(event.decided_at)}  DECISION epoch {event.epoch}: {event.line}", about=event.kind)
    else:
        needed = f"  (needs {event.needed})" if event.needed else ""
        say(f"{_time(event.at)}  {event.phase}: {event.line}{needed}")


def _role(state: RoutingState | None, release_id: str) -> str:
    if state is None:
        return ""
    roles = {
        "active": release_id == state.active_release,
        "shadow": release_id == state.shadow_release,
        "previous": release_id == state.previous,
        "revoked": release_id in state.revoked,
    }
    return ", ".join(role for role, holds in roles.items() if holds)


def _time(at_ms: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
