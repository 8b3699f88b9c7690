"""The rules of every resident release, found by digest and made ready once."""

from __future__ import annotations

from collections.abc import Callable

from schemas.routing import RoutingState
from twinloop.errors import ArtifactError, NotReady, Transient
from twinloop.routing.domain_choice import DomainChooser
from twinloop.routing.rules import read_rules

ReadBlob = Callable[[str], bytes]
"""The verified bytes of a blob by SHA-256; raises ArtifactError or Transient (a blob store's `get`)."""


class RulesBook:
    """Choosers by release; keeps those of the releases the last prepared state names. One thread only."""

    def __init__(self, read_blob: ReadBlob) -> None:
        self._read_blob = read_blob
        self._by_digest: dict[str, DomainChooser] = {}
        self._by_release: dict[str, DomainChooser] = {}
        self.problems: tuple[str, ...] = ()
        """Resident releases whose rules could not be had, and why."""

    def prepare(self, state: RoutingState) -> None:
        """Loads what `state` needs and forgets the rest.

        Raises NotReady where the rules of a release that may be assigned to now are missing; those of another
        resident release only count as a problem.
        """
        wanted = {release: state.rules[release] for release in state.resident}
        problems: dict[str, str] = {}
        loaded: dict[str, DomainChooser] = {}
        for release, digest in wanted.items():
            try:
                loaded[digest] = loaded.get(digest) or self._by_digest.get(digest) or self._load(digest)
            except (ArtifactError, Transient) as error:
                problems[release] = f"rules of release {release}: {error}"
        self._by_digest = loaded
        self._by_release = {release: loaded[digest] for release, digest in wanted.items() if digest in loaded}
        self.problems = tuple(problems.values())
        needed = [release for release in _assignable(state) if release in problems]
        if needed:
            raise NotReady(problems[needed[0]])

    def chooser(self, release: str) -> DomainChooser:
        """The release's rules, ready to ask; raises NotReady where they were not prepared."""
        chooser = self._by_release.get(release)
        if chooser is None:
            raise NotReady(f"the rules of release {release} are not prepared")
        return chooser

    def _load(self, digest: str) -> DomainChooser:
        return DomainChooser(read_rules(self._read_blob(digest), name=digest))


def _assignable(state: RoutingState) -> tuple[str, ...]:
    is_shadow_used = state.canary is not None or state.mirror is not None
    return (state.active_release, state.shadow_release) if is_shadow_used else (state.active_release,)
