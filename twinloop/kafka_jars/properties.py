"""The broker's configuration: small, quick to start, and strict about topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def server_properties(
    node: int, *, client_port: int, controller_ports: Sequence[int], data: Path, extra: Mapping[str, object]
) -> dict[str, object]:
    """The server.properties of node `node` (from 1) of a cluster with as many nodes as controller ports."""
    nodes = len(controller_ports)
    copies = min(3, nodes)
    in_sync = max(1, copies - 1)
    listeners = f"PLAINTEXT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_ports[node - 1]}"
    found: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node,
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.partitions": 4,
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # A dead node is noticed in 3 s, not 9, and a killed one may come back as soon.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        # The newer group protocol takes its time-outs from the broker; its defaults leave a dead worker's
        # partitions idle for 45 s.
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.heartbeat.interval.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "group.min.session.timeout.ms": 1000,
        "log.cleaner.dedupe.buffer.size": 4194304,
        "log.index.size.max.bytes": 1048576,
        "log.segment.bytes": 67108864,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 1,
    }
    if nodes == 1:
        found["controller.quorum.bootstrap.servers"] = f"127.0.0.1:{controller_ports[0]}"
    else:
        voters = (f"{number + 1}@127.0.0.1:{port}" for number, port in enumerate(controller_ports))
        found["controller.quorum.voters"] = ",".join(voters)
        found["controller.quorum.election.timeout.ms"] = 500
        found["controller.quorum.fetch.timeout.ms"] = 1000
    return {**found, **extra}
