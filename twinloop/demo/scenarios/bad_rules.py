"""Somebody who can write to Redis but has no key that may: router rules swapped in the routing state, twice.

First the state is tampered with and keeps the signature it had; then it is signed anew with a key of another role. The
rules it names are in the store and well formed, so that only the signature stands between them and every question.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from schemas.answers import Answer
from schemas.event import DOMAINS
from schemas.routing import RoutingState
from twinloop.canonical import canonical_json
from twinloop.demo.scenarios.drill import Drill
from twinloop.errors import ConfigError
from twinloop.registry.blobs import open_store
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.redis_store import RedisRoutingStore
from twinloop.routing.rules import RouterRules, read_rules, rules_bytes
from twinloop.routing.store import Installed
from twinloop.signing import sign_document

FORGER = "trainer-1"
"""A real key of the installation, whose role may not write routing states."""
USERS_PER_SECOND = 30.0


def play(drill: Drill) -> None:
    drill.log.wait(lambda each: each.kind == "genesis", what="the first decision", timeout_s=30)
    state = drill.routing()
    if state is None:
        raise ConfigError("there is no routing state to tamper with")
    drill.traffic.per_second = USERS_PER_SECOND
    store = open_store(drill.connection.settings.store)
    rules = read_rules(store.get(state.rules[state.active_release]), name="the active release's rules")
    swapped = every_domain_another(rules)
    digest = store.put(rules_bytes(swapped))
    questions = drill.material.old
    before = drill.ask("before", questions)
    misled = sum(
        DomainChooser(swapped).choose(question.text) != answer.domain
        for question, answer in zip(questions, before.values(), strict=True)
    )
    drill.step(f"rules {digest[:8]} would send {misled} of {len(questions)} questions to another domain")

    tampered = state.model_copy(
        update={
            "epoch": state.epoch + 1,
            "rules": {**state.rules, state.active_release: digest},
            "decision_id": "tampered",
        }
    )
    first = _write_and_watch(drill, tampered, "keeps the old signature")
    forged = tampered.model_copy(update={"epoch": first + 1, "decision_id": "forged"})
    signed = sign_document(forged, drill.connection.signer(FORGER))
    _write_and_watch(drill, signed, f"is signed by {FORGER}")

    after = drill.ask("after", questions)
    moved = sum(one.domain != two.domain for one, two in zip(before.values(), after.values(), strict=True))
    drill.find(
        "every question goes to the domain it went to before",
        seen=f"{moved} of {len(questions)} went to another one",
        held=moved == 0 and misled > 0,
    )
    used = [each for each in list(drill.traffic.answers.values()) if each.rules == digest]
    drill.find("no answer was made under the swapped rules", seen=f"{len(used)} were", held=not used)


def _write_and_watch(drill: Drill, state: RoutingState, how: str) -> int:
    """Write a state that nobody may believe, and wait until it is repaired; returns the epoch of the repair."""
    drill.step(f"epoch {state.epoch} with the swapped rules {how}: written to Redis")
    written = time.monotonic()
    writer = RedisRoutingStore(drill.connection.settings.redis)
    try:
        # Redis itself takes it: the server compares epochs, and only readers can check a signature.
        taken = isinstance(writer.install(canonical_json(state), mode="advance"), Installed)
    finally:
        writer.close()
    restore = drill.log.wait(
        lambda each: each.kind == "restore", what="the repair", timeout_s=30, after=state.epoch
    )
    drill.wait_until(lambda: _epoch(drill) >= restore.epoch, what="the repaired key", timeout_s=30)
    took_s = time.monotonic() - written
    followed = _of_epoch(drill.traffic.answers, state.epoch)
    drill.find(
        f"a state that {how} is refused by every reader and put right above its epoch",
        seen=f"{followed} answers of epoch {state.epoch}; {took_s:.1f} s later: {restore.line}",
        held=taken and followed == 0 and restore.reason == "redis_forged" and restore.epoch > state.epoch,
    )
    return restore.epoch


def _epoch(drill: Drill) -> int:
    found = drill.routing()
    return 0 if found is None else found.epoch


def _of_epoch(answers: Mapping[str, Answer], epoch: int) -> int:
    return sum(1 for each in list(answers.values()) if each.epoch == epoch)


def every_domain_another(rules: RouterRules) -> RouterRules:
    """Each domain gets the keywords and examples of the next one."""
    following = dict(zip(DOMAINS, (*DOMAINS[1:], DOMAINS[0]), strict=True))
    domains = {domain: rules.domains[following[domain]] for domain in DOMAINS}
    return RouterRules.model_validate({**rules.model_dump(), "domains": domains})
