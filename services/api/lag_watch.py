"""Asks every few seconds how far each service is behind, in a thread of its own: the answers may be slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from services.api.core.read_model import GroupLag as Behind
from services.api.follower import Follower
from services.api.metrics import ApiMetrics
from twinloop.bus.lag import GroupLag
from twinloop.bus.settings import KafkaSettings
from twinloop.errors import Transient
from twinloop.telemetry.logging import get_logger
from twinloop.topics import TopicCatalogue

READ_BY: Mapping[str, tuple[str, ...]] = {
    "router": ("queries",),
    "inference.blue": ("queries.blue",),
    "inference.green": ("queries.green",),
    "gatekeeper": ("assignments", "outcomes", "commands"),
    "trainer": ("feedback", "documents", "changes"),
}
"""What each group reads, of the topics where falling behind shows first."""
_log = get_logger(__name__)


class LagWatch:
    """Keeps the read model's and the metrics' lag current until closed."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: TopicCatalogue,
        follower: Follower,
        *,
        metrics: ApiMetrics,
        every_s: float,
    ) -> None:
        self._kafka, self._topics, self._follower = kafka, topics, follower
        self._metrics, self._every_s = metrics, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=20)

    def _run(self) -> None:
        with ExitStack() as stack:
            prefix = self._topics.settings.prefix
            groups = {
                name: stack.enter_context(GroupLag(self._kafka, prefix + name)).behind for name in READ_BY
            }
            while not self._stop.is_set():
                try:
                    found = self._ask(groups)
                except Transient as error:
                    _log.warning("lag_unknown", reason=str(error))
                    self._metrics.behind(())
                else:
                    self._metrics.behind(found)
                    with self._follower.model() as model:
                        model.set_lag(found)
                self._stop.wait(self._every_s)

    def _ask(self, groups: Mapping[str, Callable[[str, int], int | None]]) -> tuple[Behind, ...]:
        found = []
        for group, behind in groups.items():
            for topic in READ_BY[group]:
                records = behind(self._topics.name(topic), self._topics.partitions(topic))
                if records is not None:
                    found.append(Behind(group, topic, records))
        return tuple(found)
