"""The QA probes: what is asked, what counts as a right answer, and how a result is told from its query id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StringConstraints, ValidationError, field_validator

from schemas.answers import Evaluation
from schemas.event import Domain, Frozen
from schemas.gate_inputs import ProbeAnswer, ProbeMeasurement
from schemas.outcomes import OutcomeRow
from twinloop.canonical import sha256_hex
from twinloop.errors import ConfigError

Side = Literal["candidate", "active"]
_LETTERS: dict[Side, str] = {"candidate": "c", "active": "a"}
_QUERY_ID = re.compile(r"(qa-[0-9a-f]{8}-[0-9]+)\.([ca])\.(.+)")


class Probe(Frozen):
    """One question of the examination."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    question: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    domain: Domain | None = None
    """Fixes the domain; where absent the candidate's own rules choose it."""
    needs_citation: bool = False
    """Whether a valid citation belongs to a right answer."""
    expect: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    """Text a right answer contains; case and blanks do not matter."""
    expect_pattern: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    """Regular expression a right answer matches somewhere."""

    @field_validator("expect_pattern")
    @classmethod
    def compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    def is_met_by(self, text: str) -> bool | None:
        """Whether an answer says what is expected; None where nothing is."""
        if self.expect is None and self.expect_pattern is None:
            return None
        contained = self.expect is None or _plain(self.expect) in _plain(text)
        return contained and (self.expect_pattern is None or re.search(self.expect_pattern, text) is not None)


@dataclass(frozen=True)
class ProbeSet:
    """The probes in order of id, and the digest of the bytes they were read from."""

    digest: str
    probes: dict[str, Probe]

    @classmethod
    def read(cls, data: bytes, *, name: str) -> ProbeSet:
        """Parse JSON Lines; raises ConfigError naming file and line of the first fault."""
        probes: dict[str, Probe] = {}
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                probe = Probe.model_validate_json(line)
            except ValidationError as error:
                fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
                where = ".".join(map(str, fault["loc"])) or "line"
                raise ConfigError(f"{name}:{number}: {where}: {fault['msg']}") from error
            if probe.id in probes:
                raise ConfigError(f"{name}:{number}: probe {probe.id} is there twice; rename one")
            probes[probe.id] = probe
        if not probes:
            raise ConfigError(f"{name}: holds no probe; a candidate could never be examined")
        return cls(sha256_hex(data), dict(sorted(probes.items())))


def query_id(run: str, side: Side, probe: str) -> str:
    """The id a probe's query carries."""
    return f"{run}.{_LETTERS[side]}.{probe}"


def parse_query_id(text: str) -> tuple[str, Side, str] | None:
    """(run, side, probe) of a probe's query id; None for any other id."""
    found = _QUERY_ID.fullmatch(text)
    if found is None:
        return None
    run, letter, probe = found.groups()
    return run, "candidate" if letter == "c" else "active", probe


def answer_of(evaluation: Evaluation, probes: ProbeSet) -> ProbeAnswer | None:
    """What an evaluation says about a probe of this set; None where it is about something else."""
    named = parse_query_id(evaluation.query_id)
    if named is None or evaluation.purpose != "qa" or named[2] not in probes.probes:
        return None
    run, side, probe_id = named
    return ProbeAnswer(
        run=run,
        side=side,
        probe=probe_id,
        release=evaluation.release,
        error=evaluation.error.kind if evaluation.error else None,
        cites=bool(evaluation.citations) and all(cited.retrieved for cited in evaluation.citations),
        as_expected=probes.probes[probe_id].is_met_by(evaluation.text or ""),
    )


def measurement_of(row: OutcomeRow) -> ProbeMeasurement | None:
    """What an outcome says about a probe; None where it is about something else."""
    named = parse_query_id(row.id)
    if named is None or row.purpose != "qa":
        return None
    run, side, probe_id = named
    return ProbeMeasurement(
        run=run,
        side=side,
        probe=probe_id,
        release=row.release,
        error=row.error,
        latency_ms=row.latency_ms,
        toxic=row.toxic,
        citation=row.citation,
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
