"""Real Kafka brokers (KRaft) as child processes: start, kill, freeze, restart on the same ports and data."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from twinloop.bus.admin import KafkaAdmin
from twinloop.bus.settings import KafkaSettings
from twinloop.embedded.valkey import free_port
from twinloop.errors import Transient
from twinloop.kafka_jars.jars import KafkaJars, exclusive, fetch
from twinloop.kafka_jars.properties import server_properties

_CLUSTER_ID = "dHdpbmxvb3AtdGVzdHMtMQ"


class KafkaNode:
    """One broker-and-controller process in one run folder."""

    def __init__(
        self,
        jars: KafkaJars,
        folder: Path,
        *,
        properties: Mapping[str, object],
        is_only_node: bool,
        outlives_us: bool,
    ) -> None:
        self._jars = jars
        self.folder = folder
        self._properties = properties
        self._is_only_node = is_only_node
        self._outlives_us = outlives_us
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def format(self) -> None:
        """Writes the config and an empty log, unless this folder has one; raises Transient where Kafka refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in sorted(self._properties.items())))
        if (self.folder / "data" / "meta.properties").exists():
            return
        mode = ["--standalone"] if self._is_only_node else []
        command = self._jars.command(
            "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config), *mode, heap_mb=128
        )
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise Transient(
                f"Kafka could not format {self.folder}: {(answer.stdout + answer.stderr)[-1500:]}"
            )

    def start(self, *, make_archive: bool = False) -> None:
        """Starts the process; `KafkaBroker.wait_ready` says when it answers."""
        command = self._jars.command(
            "kafka.Kafka", str(self.folder / "server.properties"), make_archive=make_archive
        )
        setpriv = shutil.which("setpriv")
        if setpriv and not self._outlives_us:
            # A test run that is killed must not leave brokers behind.
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait_gone(self, timeout_s: float) -> None:
        """Waits for the end of the process; kills it after `timeout_s`."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check_alive(self) -> None:
        """Raises Transient with the end of the log where the process has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise Transient(f"Kafka ended with {self._process.returncode}: {self.tail()}")

    def tail(self, characters: int = 2000) -> str:
        """The end of the broker's log."""
        path = self.folder / "out.log"
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""


class KafkaBroker:
    """A Kafka of one node (default) or three; a context manager that leaves nothing behind.

    Ports are free ones and stay the same over `stop`, `kill` and `start`. With three nodes topics may have
    replication factor 3, and the loss of one node loses nothing that was acknowledged.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        nodes: int = 1,
        ports: Sequence[int] = (),
        extra: Mapping[str, object] | None = None,
        jars: KafkaJars | None = None,
        outlives_us: bool = False,
        start_timeout_s: float = 90.0,
    ) -> None:
        """Prepares nodes in `folder` (default: a temporary one, removed at the end); `start()` starts them.

        `ports` are the nodes' client ports; `extra` are further broker properties. Raises ConfigError where there is
        no Java 17 or the jars cannot be fetched.
        """
        self._jars = jars or with_archive(fetch())
        self._is_temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="twinloop-kafka-"))
        self._timeout_s = start_timeout_s
        client_ports = list(ports) or [free_port() for _ in range(nodes)]
        controller_ports = [free_port() for _ in range(nodes)]
        self.bootstrap_servers = ",".join(f"127.0.0.1:{port}" for port in client_ports)
        self.nodes = [
            KafkaNode(
                self._jars,
                self.folder / f"node-{number + 1}",
                properties=server_properties(
                    number + 1,
                    client_port=client_ports[number],
                    controller_ports=controller_ports,
                    data=self.folder / f"node-{number + 1}" / "data",
                    extra=extra or {},
                ),
                is_only_node=nodes == 1,
                outlives_us=outlives_us,
            )
            for number in range(nodes)
        ]

    def start(self, *, make_archive: bool = False) -> KafkaBroker:
        """Formats what is new, starts what does not run, and waits until all nodes answer; raises Transient."""
        for node in self.nodes:
            if node.pid is None:
                node.format()
                node.start(make_archive=make_archive)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Returns when every node answers; raises Transient with the log of one that ended."""
        deadline = time.monotonic() + self._timeout_s
        admin = KafkaAdmin(KafkaSettings(bootstrap_servers=self.bootstrap_servers))
        while True:
            for node in self.nodes:
                node.check_alive()
            try:
                return admin.wait_ready(0.5, brokers=len(self.nodes))
            except Transient:
                if time.monotonic() > deadline:
                    raise

    def stop(self) -> None:
        """Stops all nodes in good order, together: in turn, the last would wait for a quorum for ever."""
        for node in self.nodes:
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.wait_gone(10.0)

    def kill(self, number: int = 0) -> None:
        """Kills one node at once (SIGKILL)."""
        self.nodes[number].signal(signal.SIGKILL)
        self.nodes[number].wait_gone(10.0)

    def restart(self) -> None:
        """Stops and starts again, same ports, same data."""
        self.stop()
        self.start()

    def restart_node(self, number: int) -> None:
        """Stops one node in good order, which hands its partitions over, and starts it again."""
        self.nodes[number].signal(signal.SIGTERM)
        self.nodes[number].wait_gone(30.0)
        self.start()

    def freeze(self, number: int = 0) -> None:
        """Stops a node's clock (SIGSTOP): it keeps its connections and answers nothing."""
        self.nodes[number].signal(signal.SIGSTOP)

    def thaw(self, number: int = 0) -> None:
        """Undoes `freeze()`."""
        self.nodes[number].signal(signal.SIGCONT)

    def close(self) -> None:
        """Stops all nodes and removes a temporary folder."""
        self.stop()
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> KafkaBroker:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def with_archive(jars: KafkaJars) -> KafkaJars:
    """The same jars, with the class-data archive made if it is not there: one start and stop of a broker."""
    with exclusive(jars.folder / "archive-lock"):
        if not jars.archive.exists():
            broker = KafkaBroker(jars=jars)
            try:
                broker.start(make_archive=True)
            finally:
                for node in broker.nodes:
                    node.signal(signal.SIGTERM)
                for node in broker.nodes:
                    # Writing the archive at exit takes its time.
                    node.wait_gone(60.0)
                broker.close()
    return jars
