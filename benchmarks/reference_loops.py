"""Loops of other clients beside the router's bare one, each in a process of its own: consume, send on, commit.

Same broker, records, batch size, linger, acks and commit interval; no domain logic. aiokafka's loop is transactional,
as the bare one is. faust's is not, its `exactly_once` is broken (see `twinloop.bus.faust_app`): it commits the offsets
once everything sent is acknowledged, at least once, which is less work.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiokafka

from benchmarks.reference_task import TIMEOUT_S, Task
from services.router.__main__ import tune_interpreter
from twinloop.bus.faust_app import build_app, commit_offsets, run_until
from twinloop.bus.records import TopicPartition

BATCH_BYTES = 1_000_000
"""What librdkafka puts into one batch; the 16 KiB that these clients ship with would be measured instead of them."""


class Tally:
    """Counts what is sent on after the first batch: until then a client's own start is in the time."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._warming, self._left, self._done = task.batch_max, task.count - task.batch_max, 0
        self._wall = self._cpu = self._committed_at = 0.0

    def add(self, records: int) -> bool:
        """Counts these as sent on; whether a commit is due."""
        if self._wall:
            self._done += records
        else:
            self._warming -= records
            if self._warming <= 0:
                self._left += self._warming
                self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self.is_over or time.perf_counter() - self._committed_at >= self._task.commit_interval_s

    def committed(self) -> None:
        self._committed_at = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """All are sent on, or the time is up."""
        if not self._wall:
            return False
        return self._done >= self._left or time.perf_counter() - self._wall >= self._task.limit_s

    def rates(self) -> tuple[float, float]:
        """Records a second of wall time and of this process's processor time."""
        return self._done / (time.perf_counter() - self._wall), self._done / (time.process_time() - self._cpu)


async def aiokafka_loop(task: Task) -> tuple[float, float]:
    """aiokafka with its transactional producer; the offsets are committed in the transaction."""
    settings, tally = task.kafka, Tally(task)
    consumer = aiokafka.AIOKafkaConsumer(
        task.source,
        bootstrap_servers=settings.bootstrap_servers,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        # librdkafka does not check them by default either.
        check_crcs=False,
        fetch_max_wait_ms=settings.fetch_wait_max_ms,
    )
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        transactional_id=task.group,
        acks="all",
        linger_ms=settings.linger_ms,
        max_batch_size=BATCH_BYTES,
    )
    async with consumer, producer:
        offsets: dict[Any, int] = {}
        while not tally.is_over:
            found = await consumer.getmany(timeout_ms=10, max_records=task.batch_max)
            if not found:
                continue
            if not offsets:
                await producer.begin_transaction()
            for place, records in found.items():
                for record in records:
                    await producer.send(
                        task.target,
                        record.value,
                        record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                    )
                offsets[place] = records[-1].offset + 1
            if tally.add(sum(map(len, found.values()))):
                await producer.send_offsets_to_transaction(offsets, task.group)
                await producer.commit_transaction()
                offsets = {}
                tally.committed()
        return tally.rates()


async def faust_loop(task: Task) -> tuple[float, float]:
    """faust as the gatekeeper runs it: one agent, its own producer, offsets committed exactly."""
    tally, stopped = Tally(task), asyncio.Event()
    app = build_app(task.kafka, group=task.group, partitions=task.partitions)
    app.conf.producer_max_batch_size = BATCH_BYTES
    target = app.topic(task.target)
    found: list[tuple[float, float]] = []

    async def send_on(stream: Any) -> None:
        offsets: dict[TopicPartition, int] = {}
        async for event in stream.noack().events():
            if stopped.is_set():
                continue
            message = event.message
            await target.send(
                key=message.key,
                value=message.value,
                partition=message.partition,
                headers=message.headers,
            )
            offsets[TopicPartition(message.topic, message.partition)] = message.offset + 1
            if tally.add(1):
                await app.producer.flush()
                await commit_offsets(app, offsets)
                offsets = {}
                tally.committed()
            if tally.is_over:
                found.append(tally.rates())
                stopped.set()

    app.agent(app.topic(task.source), name="send-on")(send_on)
    await run_until(app, stopped)
    return found[0]


LOOPS: Mapping[str, Callable[[Task], Awaitable[tuple[float, float]]]] = {
    "aiokafka": aiokafka_loop,
    "faust": faust_loop,
}


def main() -> int:
    client, task = sys.argv[1], Task.model_validate_json(sys.argv[2])
    tune_interpreter()

    async def bounded() -> tuple[float, float]:
        return await asyncio.wait_for(LOOPS[client](task), task.limit_s + TIMEOUT_S)

    print(json.dumps(asyncio.run(bounded())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
