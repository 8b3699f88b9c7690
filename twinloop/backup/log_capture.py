"""The log at one moment, topic by topic, while services may go on writing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from twinloop.bus.reader import LogReader
from twinloop.bus.records import Record, TopicPartition
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import Transient

_SILENCE_S = 60.0
"""An open transaction hides what follows it until the broker ends it, by default after 20 s."""
_BATCH = 1000


def ends_of(kafka: KafkaSettings, topics: Sequence[str]) -> Mapping[TopicPartition, int]:
    """The end of every partition of `topics` (full names), taken in this order; raises Transient."""
    ends: dict[TopicPartition, int] = {}
    for topic in topics:
        with LogReader(kafka, topics=[topic]) as reader:
            ends.update(reader.high_watermarks())
    return ends


def records_until(kafka: KafkaSettings, source: TopicPartition, end: int) -> Iterator[Record]:
    """Every committed record of a partition below `end`, in order; raises Transient where it is not reached."""
    if end == 0:
        return
    with LogReader(kafka, partitions=[source]) as reader:
        heard = time.monotonic()
        while reader.positions().get(source, -1) < end:
            before = reader.positions().get(source, -1)
            for record in reader.poll(_BATCH, 0.2):
                if record.offset < end:
                    yield record
            if reader.positions().get(source, -1) > before:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                raise Transient(
                    f"{source.topic}[{source.partition}] could not be read up to offset {end} within {_SILENCE_S:g} s"
                )
