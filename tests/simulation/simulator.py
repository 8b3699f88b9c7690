"""One seed, one history: random work, kills, freezes, cuts and losses, then peace, then the accounts are checked."""

from __future__ import annotations

from collections import Counter
from random import Random

from schemas.event import SLOTS
from services.router.core.query import ParsedQuery
from tests.simulation.log_model import Append, Logs
from tests.simulation.plants import Plants
from tests.simulation.processes import Answered, Broken, Process, Router, Worker, World
from tests.simulation.redis_model import Disk, Redis
from tests.simulation.states import Gatekeeper

PARTITIONS = 2
STEPS = 150
TROUBLES = ("kill", "kill", "replace", "freeze", "freeze", "cut", "cut", "heal", "wait", "lose")
_PEACE_ROUNDS = 200


class Simulation:
    """A small installation under one seed's weather."""

    def __init__(self, seed: int, plants: Plants) -> None:
        self._random = Random(seed)
        self._world = World(Logs(), Redis(), plants)
        self._gatekeeper = Gatekeeper(self._random)
        self._asked: list[tuple[int, ParsedQuery]] = []
        self._install(first=True)
        self._processes: dict[str, Process] = {}
        self._zombies: list[Process] = []
        self._frozen: dict[str, int] = {}
        self._disks: dict[str, Disk] = {}
        for number in range(PARTITIONS):
            self._start(f"router {number}")
            for slot in SLOTS:
                self._start(f"worker {slot} {number}")
        self._names = list(self._processes)

    def run(self) -> None:
        """Raises Broken where an invariant does not hold."""
        for tick in range(STEPS):
            self._tick(tick)
        self._make_peace()
        self._check_accounts()

    def _tick(self, tick: int) -> None:
        chance = self._random.random()
        self._world.now_ms += self._random.choice((0, 1, 5, 20))
        if chance < 0.12:
            self._ask()
        elif chance < 0.17:
            self._decide()
        elif chance < 0.20:
            self._trouble(tick)
        elif self._zombies and chance < 0.24:
            self._step_zombie()
        else:
            name = self._random.choice(self._names)
            if self._frozen.get(name, 0) <= tick:
                self._step(name)

    def _ask(self) -> None:
        if self._asked and self._random.random() < 0.25:
            number, query = self._random.choice(self._asked)
        else:
            name = f"q{len(self._asked)}"
            number = self._random.randrange(PARTITIONS)
            deadline_ms = 50 if self._random.random() < 0.05 else 600_000
            query = ParsedQuery(
                id=name,
                text="?",
                asked_at=self._world.now_ms,
                subject=f"user-{self._random.randrange(40)}",
                deadline_ms=deadline_ms,
                canary_opt_out=self._random.random() < 0.05,
            )
            self._asked.append((number, query))
        self._world.logs.append(Append("queries", number, query))

    def _decide(self) -> None:
        if self._world.redis.has_lost:
            self._restore()
        else:
            self._gatekeeper.next_state()
            self._install()

    def _install(self, *, first: bool = False) -> None:
        state = self._gatekeeper.state
        done = self._world.redis.install(state.model_dump_json().encode(), "create" if first else "advance")
        if done:
            self._world.newest_acknowledged = state.epoch

    def _restore(self) -> None:
        state = self._gatekeeper.restored()
        if self._world.redis.install(state.model_dump_json().encode(), "restore"):
            self._world.newest_acknowledged = state.epoch

    def _trouble(self, tick: int) -> None:
        kind = self._random.choice(
            ("kill", "kill", "replace", "freeze", "freeze", "cut", "cut", "heal", "wait", "lose")
        )
        name = self._random.choice(self._names)
        if kind == "kill":
            self._start(name)
        elif kind == "replace":
            self._zombies.append(self._processes[name])
            self._start(name)
        elif kind == "freeze":
            self._frozen[name] = tick + self._random.randrange(5, 60)
        elif kind == "cut":
            self._processes[name].link.is_cut = True
        elif kind == "heal":
            for process in self._processes.values():
                process.link.is_cut = False
        elif kind == "wait":
            self._world.now_ms += 2_500
        else:
            survivors = [None, *self._world.redis.history[:-1]]
            self._world.redis.lose(self._random.choice(survivors))

    def _start(self, name: str) -> None:
        """A new process of that name takes over; what its predecessor had not committed is undone."""
        role, *rest = name.split()
        disk = self._disks.setdefault(name, Disk())
        log = "queries" if role == "router" else f"queries.{rest[0]}"
        self._world.logs.partition(log, int(rest[-1])).generation += 1
        if role == "router":
            self._processes[name] = Router(self._world, int(rest[0]), disk)
        else:
            slot = SLOTS[SLOTS.index(rest[0])]  # type: ignore[arg-type]
            self._processes[name] = Worker(self._world, slot, int(rest[1]), disk)

    def _step(self, name: str) -> None:
        process = self._processes[name]
        process.step()
        if process.is_over:
            self._start(name)

    def _step_zombie(self) -> None:
        zombie = self._random.choice(self._zombies)
        zombie.step()
        if zombie.is_over:
            self._zombies.remove(zombie)

    def _make_peace(self) -> None:
        """Everything works again, for long enough that whatever can end ends."""
        for process in self._processes.values():
            process.link.is_cut = False
        if self._world.redis.has_lost:
            self._restore()
        for _ in range(_PEACE_ROUNDS):
            self._world.now_ms += 20
            for name in self._names:
                self._step(name)
            if self._is_drained():
                return

    def _is_drained(self) -> bool:
        return all(
            process.source.committed == len(process.source.records) and process.phase != 2
            for process in self._processes.values()
        )

    def _check_accounts(self) -> None:
        answers = Counter(answer.query_id for answer in self._answers())
        for _, query in self._asked:
            if answers[query.id] != 1:
                raise Broken(f"query {query.id} was answered {answers[query.id]} times")

    def _answers(self) -> list[Answered]:
        return self._world.logs.everything("answers")


def run_seed(seed: int, plants: Plants | None = None) -> None:
    """Runs one history; raises Broken naming the seed."""
    try:
        Simulation(seed, plants or Plants()).run()
    except Broken as broken:
        raise Broken(f"seed {seed}: {broken}; again with TWINLOOP_SEED={seed}") from broken
