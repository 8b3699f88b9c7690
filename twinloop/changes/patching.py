"""A JSON Patch applied to a release's rules and prompt: within the allowed paths and bounds, or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import jsonpatch
from pydantic import JsonValue

from schemas.changes import PatchOperation, ReleaseDocuments
from twinloop.canonical import canonical_json, sha256_hex
from twinloop.changes.allowed_paths import (
    AuthorKind,
    ChangePolicy,
    Difference,
    Operation,
    Tokens,
    to_tokens,
)
from twinloop.changes.refusal import ChangeRefused
from twinloop.errors import ArtifactError, ConfigError
from twinloop.model_runtime.prompt import PromptFormat
from twinloop.routing.rules import RouterRules, read_rules, rules_bytes

LAST = "-"
"""The end of a list in a JSON Pointer."""


@dataclass(frozen=True)
class Documents:
    """Rules and prompt of one release, parsed; equal ones have equal digests."""

    rules: RouterRules
    prompt: PromptFormat

    @classmethod
    def read(cls, rules: bytes, prompt: bytes) -> Documents:
        """Parse what a release names; raises ArtifactError or ConfigError."""
        return cls(read_rules(rules, name="of the release"), PromptFormat.from_json(prompt))

    @property
    def digests(self) -> ReleaseDocuments:
        return ReleaseDocuments(rules=sha256_hex(self.rules_bytes), prompt=sha256_hex(self.prompt_bytes))

    @property
    def rules_bytes(self) -> bytes:
        return rules_bytes(self.rules)

    @property
    def prompt_bytes(self) -> bytes:
        return self.prompt.to_json()

    def plain(self) -> dict[str, JsonValue]:
        """The one document that patches are about."""
        return {"rules": self.rules.model_dump(mode="json"), "prompt": asdict(self.prompt)}


def apply_change(
    base: Documents, patch: Sequence[PatchOperation], policy: ChangePolicy, *, author: AuthorKind
) -> Documents:
    """What the patch makes of `base`.

    Both are looked at: every path the patch names, and every value that differs afterwards, whatever order of
    operations led to it. Raises ChangeRefused naming the place at fault.
    """
    for step in patch:
        if step.op != "test":
            policy.check_path(to_tokens(step.path), author)
    before = base.plain()
    after = _patched(base.plain(), patch)
    policy.check(list(differences(before, after)), author)
    made = _parsed(after)
    if made.digests == base.digests:
        raise ChangeRefused("no-change", "the patch changes nothing")
    return made


def patched(base: Documents, patch: Sequence[PatchOperation]) -> Documents:
    """What the patch makes of `base`, whatever paths it names; raises ChangeRefused where that could not be used."""
    return _parsed(_patched(base.plain(), patch))


def differences(before: JsonValue, after: JsonValue, at: Tokens = ()) -> Iterator[Difference]:
    """Every value in which two documents differ; a list counts as what is in it, in whatever order."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            if name not in after:
                yield from _each(before[name], (*at, name), "remove")
            elif name not in before:
                yield from _each(after[name], (*at, name), "add")
            else:
                yield from differences(before[name], after[name], (*at, name))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _list_differences(before, after, at)
    elif canonical_json(before) != canonical_json(after):
        yield Difference(at, "replace", after)


def inverse(before: Documents, after: Documents) -> tuple[PatchOperation, ...]:
    """The patch that makes `before` of `after` again."""
    steps = jsonpatch.make_patch(after.plain(), before.plain()).patch
    return tuple(PatchOperation.model_validate(step) for step in steps)


def _patched(document: JsonValue, patch: Sequence[PatchOperation]) -> JsonValue:
    for number, step in enumerate(patch, start=1):
        where = f"operation {number}, {step.op} {step.path}"
        try:
            document = jsonpatch.apply_patch(document, [step.model_dump()], in_place=True)
        except jsonpatch.JsonPatchTestFailed as error:
            raise ChangeRefused("not-applicable", f"{where}: the value there is another one") from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise ChangeRefused(
                "not-applicable", f"{where}: there is no such place in these documents"
            ) from error
    return document


def _parsed(document: JsonValue) -> Documents:
    """The documents as the router and the workers will read them; raises ChangeRefused where they could not."""
    if not isinstance(document, dict) or set(document) != {"rules", "prompt"}:
        raise ChangeRefused("invalid", "rules and prompt have to stay where they are")
    try:
        return Documents.read(canonical_json(document["rules"]), json.dumps(document["prompt"]).encode())
    except (ArtifactError, ConfigError) as error:
        raise ChangeRefused("invalid", f"the result could not be used: {error}"[:500]) from error


def _list_differences(before: list[JsonValue], after: list[JsonValue], at: Tokens) -> Iterator[Difference]:
    had, has = Counter(map(canonical_json, before)), Counter(map(canonical_json, after))
    for _ in (had - has).elements():
        yield Difference((*at, LAST), "remove")
    for item in (has - had).elements():
        yield Difference((*at, LAST), "add", json.loads(item))
    if had == has and canonical_json(before) != canonical_json(after):
        yield Difference(at, "replace", after)  # another order


def _each(value: JsonValue, at: Tokens, operation: Operation) -> Iterator[Difference]:
    """A branch that came or went, value by value; an empty one is a value."""
    inside: list[tuple[str, JsonValue]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = [(LAST, item) for item in value]
    if not inside:
        yield Difference(at, operation, value)
    for name, item in inside:
        yield from _each(item, (*at, name), operation)
