"""What a proposed change may touch: paths with types and bounds, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from schemas.changes import MAX_OPERATIONS
from twinloop.changes.refusal import ChangeRefused

AuthorKind = Literal["person", "program"]
Operation = Literal["add", "replace", "remove"]
ANY = "*"
ROOTS = ("rules", "prompt")
"""The documents a release names that no training makes; nothing outside a release can be reached by a patch."""

Tokens = tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """One value that a patch changed: where, how, and what it is afterwards."""

    path: Tokens
    operation: Operation
    value: JsonValue = None

    @property
    def pointer(self) -> str:
        return to_pointer(self.path)


class AllowedPath(BaseModel):
    """One pattern of paths that may change, and within which bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """A JSON Pointer below `/rules` or `/prompt`; `*` stands for any one part. A list's items share one `*`."""
    type: Literal["number", "integer", "text", "boolean"]
    """What a value has to be; nothing is converted."""
    minimum: float | None = None
    """Least number, or least length of a text."""
    maximum: float | None = None
    """Largest number, or longest text in characters."""
    choices: tuple[JsonValue, ...] | None = None
    """The only values allowed, where named."""
    operations: tuple[Operation, ...] = ("replace",)
    """What may be done there; adding and removing only make sense in a map or a list."""
    authors: tuple[AuthorKind, ...] = ("person",)
    """Who may propose it; a program has to be named."""

    @field_validator("path")
    @classmethod
    def lies_in_a_release(cls, path: str) -> str:
        tokens = to_tokens(path)
        if len(tokens) < 2 or tokens[0] not in ROOTS:
            raise ValueError(
                f"{path!r} is not below /{' or /'.join(ROOTS)}: nothing else travels in a release"
            )
        return path

    @model_validator(mode="after")
    def has_bounds(self) -> AllowedPath:
        if self.choices is None and self.type != "boolean" and (self.minimum is None or self.maximum is None):
            raise ValueError(f"{self.path}: a {self.type} needs minimum and maximum, or choices")
        return self

    @property
    def tokens(self) -> Tokens:
        return to_tokens(self.path)

    def covers(self, path: Tokens) -> bool:
        """Whether this pattern speaks about that place."""
        own = self.tokens
        return len(own) == len(path) and all(
            mine in (ANY, token) for mine, token in zip(own, path, strict=True)
        )

    def fault_of(self, value: JsonValue) -> str | None:
        """Why this value may not stand here; None where it may."""
        size = _size(self.type, value)
        if size is None:
            return f"must be a {self.type}"
        if self.choices is not None:
            return None if value in self.choices else f"must be one of {', '.join(map(str, self.choices))}"
        what = "the length " if self.type == "text" else ""
        # Written so that a NaN is outside.
        if self.minimum is not None and not size >= self.minimum:
            return f"{what}{size:g} is below the minimum {self.minimum:g}"
        if self.maximum is not None and not size <= self.maximum:
            return f"{what}{size:g} is above the maximum {self.maximum:g}"
        return None


class ChangePolicy(BaseModel):
    """Everything that may be proposed; empty allows nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    allowed: tuple[AllowedPath, ...] = ()
    """Places that may change; the first pattern that covers a place decides."""
    max_differences: Annotated[int, Field(ge=1)] = MAX_OPERATIONS
    """Values one proposal of a person may change."""
    max_differences_of_programs: Annotated[int, Field(ge=1)] = 20
    """Values one proposal of a program may change."""

    def check_path(self, path: Tokens, author: AuthorKind) -> AllowedPath:
        """The pattern that allows this author this place; raises ChangeRefused."""
        found = next((each for each in self.allowed if each.covers(path)), None)
        if found is None:
            raise ChangeRefused("path", f"{to_pointer(path)} is not among the paths that may change")
        if author not in found.authors:
            who = " or ".join(found.authors)
            raise ChangeRefused("author", f"{to_pointer(path)} may be changed by a {who} only")
        return found

    def check(self, differences: Sequence[Difference], author: AuthorKind) -> None:
        """Raises ChangeRefused unless this author may make every one of these differences."""
        if not differences:
            raise ChangeRefused("no-change", "the patch changes nothing")
        limit = self.max_differences if author == "person" else self.max_differences_of_programs
        if len(differences) > limit:
            raise ChangeRefused("bounds", f"{len(differences)} values would change, at most {limit} may")
        for difference in differences:
            found = self.check_path(difference.path, author)
            if difference.operation not in found.operations:
                raise ChangeRefused(
                    "bounds",
                    f"{difference.pointer}: {difference.operation} is not allowed there, only "
                    f"{' and '.join(found.operations)}",
                )
            fault = None if difference.operation == "remove" else found.fault_of(difference.value)
            if fault is not None:
                raise ChangeRefused("bounds", f"{difference.pointer}: {fault}")


def to_tokens(pointer: str) -> Tokens:
    """The parts of a JSON Pointer, unescaped; raises ValueError for what is none."""
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON Pointer: it has to begin with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def to_pointer(tokens: Tokens) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def _size(kind: str, value: JsonValue) -> float | None:
    """What the bounds are about; None where the value is of another type."""
    if isinstance(value, bool):
        return float(value) if kind == "boolean" else None
    if kind == "text":
        return float(len(value)) if isinstance(value, str) else None
    if isinstance(value, int):
        return float(value) if kind in ("integer", "number") else None
    return value if isinstance(value, float) and kind == "number" else None
