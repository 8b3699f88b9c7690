"""Routers and workers as small models around the shipped decisions, cut into steps that faults may fall between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from schemas.event import Slot
from schemas.routing import RoutingState
from services.router.core.deduplication import SeenIds
from services.router.core.micro_batch import Arrival, Decisions, Situation, decide
from services.router.core.overload import OverloadPolicy
from services.router.core.query import ParsedQuery
from tests.simulation.log_model import Append, Logs, Partition
from tests.simulation.plants import CarelessReader, Plants
from tests.simulation.redis_model import Disk, Link, Redis
from twinloop.routing.assignment import assign
from twinloop.routing.fence import Forward, Keep, fence, is_affected
from twinloop.routing.reader import Reading, StateReader
from twinloop.routing.reader_core import ReaderPolicy
from twinloop.routing.stamp import Stamp

HOLD_MAX_S = 2.0
WINDOW_MS = 600_000
MAX_HOPS = 3
_POLICY = ReaderPolicy(hold_max_s=HOLD_MAX_S)
_OVERLOAD = OverloadPolicy()


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Routed:
    """A record of a slot's topic."""

    query: ParsedQuery
    stamp: Stamp


@dataclass(frozen=True)
class Answered:
    """A record of `answers`; `kind` says how the query ended."""

    query_id: str
    kind: str


class GenChooser:
    """Rules that know one domain; domain choice has tests of its own."""

    def choose(self, text: str) -> Literal["gen"]:
        return "gen"


_GEN = GenChooser()


@dataclass
class World:
    """What all processes share."""

    logs: Logs
    redis: Redis
    plants: Plants
    now_ms: int = 1_700_000_000_000
    newest_acknowledged: int = 0
    """Highest epoch whose install was acknowledged and not lost since."""


class Process:
    """What routers and workers have in common: a link, a reader, one partition they consume."""

    def __init__(self, world: World, log: str, number: int, disk: Disk) -> None:
        self.world = world
        self.log, self.number, self.disk = log, number, disk
        self.link = Link(world.redis)
        self.reader: StateReader = self._new_reader()
        self.source: Partition = world.logs.partition(log, number)
        self.generation = self.source.generation
        self.position = self.source.committed
        self.is_over = False
        self.phase = 0
        self._highest = 0

    def _new_reader(self) -> StateReader:
        reader = CarelessReader(self.link, verify=_believe, policy=_POLICY, disk_copy=self.disk)  # type: ignore[arg-type]
        reader.plants = self.world.plants
        return reader

    def step(self) -> None:
        """Goes on to the next point at which it may be killed, frozen or cut off."""
        raise NotImplementedError

    def poll(self, most: int) -> list[Any]:
        found = self.source.records[self.position : self.position + most]
        self.position += len(found)
        return found

    def rewind(self) -> None:
        """Undoes what is not committed."""
        self.position = self.source.committed
        self.phase = 0

    def finish_read(self) -> Reading:
        """The end of a read, and the invariant of every reader: epochs never fall, incarnations never change."""
        reading = self.reader.finish(self.world.now_ms / 1000)
        if reading.state is not None:
            if reading.state.epoch < self._highest:
                raise Broken(f"a reader fell from epoch {self._highest} to {reading.state.epoch}")
            self._highest = reading.state.epoch
        return reading

    def commit(self, outputs: list[Append]) -> bool:
        """One transaction; a process whose partition is somebody else's now is over."""
        is_done = self.world.logs.commit(self.source, self.generation, self.position, outputs)
        self.is_over = not is_done
        return is_done


class Router(Process):
    """Consumes one partition of `queries`."""

    def __init__(self, world: World, number: int, disk: Disk) -> None:
        super().__init__(world, "queries", number, disk)
        self.seen = SeenIds(window_ms=WINDOW_MS, max_ids=10_000)
        if not world.plants.no_restored_memory:
            log = world.logs.partition("seen-ids", number)
            self.seen.restore(log.records, now_ms=world.now_ms)
        self._batch: list[ParsedQuery] = []
        self._acknowledged = 0
        self._outputs: list[Append] = []

    def step(self) -> None:
        (self._take, self._decide, self._commit)[self.phase]()

    def rewind(self) -> None:
        super().rewind()
        self.seen.undo()

    def _take(self) -> None:
        self._batch = self.poll(4)
        # What Redis has lost it cannot say: nothing is promised for a reading begun in that time.
        self._acknowledged = 0 if self.world.redis.has_lost else self.world.newest_acknowledged
        self.reader.begin()
        self.phase = 1

    def _decide(self) -> None:
        reading = self.finish_read()
        if reading.state is None:
            self.rewind()
            return
        if reading.mode == "fresh" and reading.state.epoch < self._acknowledged:
            raise Broken(
                f"queries consumed after epoch {self._acknowledged} was acknowledged are routed by epoch "
                f"{reading.state.epoch}"
            )
        if not self._batch:
            self.phase = 0
            return
        decisions = self._decisions(reading.state, unconfirmed=reading.unconfirmed)
        self.seen.add(decisions.ended.get(self.number, ()), at_ms=self.world.now_ms)
        self._outputs = self._appends(decisions)
        self.phase = 2

    def _decisions(self, state: RoutingState, *, unconfirmed: bool) -> Decisions:
        now_ms, is_blind = self.world.now_ms, self.world.plants.no_deduplication
        situation = Situation(
            state=state,
            chooser=lambda release: _GEN,  # type: ignore[arg-type,return-value]
            seen=lambda origin: () if is_blind else self.seen.known(now_ms=now_ms),
            now_ms=now_ms,
            policy=_OVERLOAD,
            unconfirmed=unconfirmed,
        )
        return decide([Arrival(self.number, query) for query in self._batch], situation)

    def _appends(self, decisions: Decisions) -> list[Append]:
        outputs = [
            Append(
                f"queries.{route.stamp.slot}", self.number, Routed(self._batch[route.position], route.stamp)
            )
            for route in decisions.routes
        ]
        outputs += [
            Append("answers", 0, Answered(self._batch[refusal.position].id, refusal.kind))
            for refusal in decisions.refusals
        ]
        ended = decisions.ended.get(self.number, ())
        outputs += [Append("seen-ids", self.number, (query_id, self.world.now_ms)) for query_id in ended]
        return outputs

    def _commit(self) -> None:
        if self.world.plants.commit_before_produce and self._outputs:
            outputs, self._outputs = self._outputs, []
            if self.commit([]):
                self._late = outputs
                self.phase = 2
            return
        late, self._late = self._late, []
        if late:
            for append in late:
                self.world.logs.append(append)
        elif not self.commit(self._outputs):
            return
        self.seen.confirm()
        self.phase = 0

    _late: list[Append] = []  # noqa: RUF012 - replaced, never changed in place


class Worker(Process):
    """Consumes one partition of one slot's topic."""

    def __init__(self, world: World, slot: Slot, number: int, disk: Disk) -> None:
        super().__init__(world, f"queries.{slot}", number, disk)
        self._batch: list[Routed] = []
        self._state: RoutingState | None = None
        self._read: RoutingState | None = None
        self._answers: list[Routed] = []
        self._outputs: list[Append] = []

    def step(self) -> None:
        (self._take, self._decide, self._look_again)[self.phase]()

    def _take(self) -> None:
        self._batch = self.poll(3)
        self.reader.begin()
        self.phase = 1

    def _decide(self) -> None:
        state = self._read_state()
        if state is None or not self._batch:
            self.rewind()
            return
        self._state, self._answers, self._outputs = state, [], []
        for routed in self._batch:
            self._end_one(routed, state)
        self.reader.begin()
        self.phase = 2

    def _end_one(self, routed: Routed, state: RoutingState) -> None:
        query, stamp = routed.query, routed.stamp
        verdict = fence(
            stamp, state, subject=query.sticky_subject, opt_out=query.canary_opt_out, max_hops=MAX_HOPS
        )
        if self.world.plants.no_fence or isinstance(verdict, Keep):
            self._answers.append(routed)
            self._tell(routed, "answered")
        elif isinstance(verdict, Forward):
            forwarded = stamp.forwarded(verdict.assignment, domain="gen", unconfirmed=False)
            slot = verdict.assignment.slot
            self._outputs.append(Append(f"queries.{slot}", self.number, Routed(query, forwarded)))
        else:
            self._tell(routed, verdict.kind)

    def _tell(self, routed: Routed, kind: str) -> None:
        if routed.stamp.purpose == "user":
            self._outputs.append(Append("answers", 0, Answered(routed.query.id, kind)))

    def _look_again(self) -> None:
        decided, seen = self._state, self._read_state()
        stamps = [routed.stamp for routed in self._batch]
        assert decided is not None
        looks = not self.world.plants.no_second_look
        if looks and (seen is None or is_affected(stamps, decided=decided, seen=seen)):
            self.rewind()
            return
        self._check_answers()
        if self.commit(self._outputs):
            self.phase = 0

    def _read_state(self) -> RoutingState | None:
        reading = self.finish_read()
        if reading.state is not None:
            self._read = reading.state
        return reading.state

    def _check_answers(self) -> None:
        """The fence's promise, said independently of the fence, for what this commit is about to answer."""
        read = self._read
        assert read is not None
        for routed in self._answers:
            stamp = routed.stamp
            if stamp.release in read.revoked:
                raise Broken(
                    f"release {stamp.release[-4:]} answers, revoked in epoch {read.epoch} the worker has read"
                )
            if stamp.purpose == "user" and read.epoch > stamp.epoch:
                belongs = assign(read, routed.query.sticky_subject, opt_out=routed.query.canary_opt_out)
                if (belongs.slot, belongs.release) != (stamp.slot, stamp.release):
                    raise Broken(
                        f"work of epoch {stamp.epoch} is committed after epoch {read.epoch} was read"
                    )


def _believe(_: RoutingState) -> None:
    """Signatures have tests of their own."""
