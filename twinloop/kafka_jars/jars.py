"""Kafka's jars in a local cache, and the Java that runs them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twinloop.errors import ConfigError

KAFKA_VERSION = "4.4.0"
OLDEST_JAVA = 17
"""Kafka 4 brokers do not start on anything older."""

_BROKER_POM = Path(__file__).with_name("pom.xml")
_TOOLS_POM = Path(__file__).with_name("tools-pom.xml")
LOG_CONFIG = Path(__file__).with_name("log4j2.properties")


@dataclass(frozen=True)
class KafkaJars:
    """Where the jars lie and which Java runs them."""

    java: str
    folder: Path

    @property
    def classpath(self) -> str:
        """All jars in a fixed order: the class-data archive is only good for exactly the order it was made with."""
        return ":".join(str(path) for path in sorted((self.folder / "jars").glob("*.jar")))

    @property
    def archive(self) -> Path:
        """The class-data archive (AppCDS) that halves the start-up time; may not be there yet."""
        return self.folder / "kafka.jsa"

    def command(
        self, main_class: str, *arguments: str, heap_mb: int = 512, make_archive: bool = False
    ) -> list[str]:
        """The command line that runs `main_class` from these jars."""
        if make_archive:
            sharing = [f"-XX:ArchiveClassesAtExit={self.archive}"]
        elif self.archive.exists():
            sharing = [f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto"]
        else:
            sharing = []
        return [
            self.java,
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Xmx{heap_mb}m",
            "-Xlog:cds=off",
            "-Xlog:cds+dynamic=off",
            *sharing,
            f"-Dlog4j2.configurationFile={LOG_CONFIG}",
            "-cp",
            self.classpath,
            main_class,
            *arguments,
        ]


def find_java(environment: Mapping[str, str] = os.environ) -> str | None:
    """A java of version 17 or newer, from JAVA_HOME or PATH, or None."""
    home = environment.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java", path=environment.get("PATH"))
    if on_path:
        candidates.append(on_path)
    for candidate in candidates:
        if java_version(candidate) >= OLDEST_JAVA:
            return candidate
    return None


def java_version(java: str) -> int:
    """The major version of a java executable; 0 where it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


def default_cache() -> Path:
    """`~/.cache/twinloop` (or under XDG_CACHE_HOME), where jars and run folders are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinloop"


def fetch(cache: Path | None = None) -> KafkaJars:
    """The broker's jars, copied with mvn into the cache the first time (45 jars, 43 MB).

    Raises ConfigError where Java 17 or mvn is missing, or mvn fails; its message holds mvn's own.
    """
    return _fetch(_BROKER_POM, (cache or default_cache()) / f"kafka-{KAFKA_VERSION}")


def fetch_tools(cache: Path | None = None) -> KafkaJars:
    """The console tools' jars, copied with mvn the first time; raises as `fetch` does."""
    return _fetch(_TOOLS_POM, (cache or default_cache()) / "kafka-tools")


def _fetch(pom: Path, folder: Path) -> KafkaJars:
    java = find_java()
    if java is None:
        raise ConfigError(
            f"Kafka {KAFKA_VERSION} needs Java {OLDEST_JAVA} or newer: install a JRE or set JAVA_HOME"
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(pom.read_bytes()).hexdigest()
    stamp = folder / "pom.sha256"
    with exclusive(folder / "lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            _copy_jars(pom, folder)
            (folder / "kafka.jsa").unlink(missing_ok=True)
            stamp.write_text(wanted)
    return KafkaJars(java, folder)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a file lock, so that two test runs do not fill one cache at the same time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_jars(pom: Path, folder: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ConfigError("Kafka's jars are fetched with mvn, which is not on PATH: install Maven")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shutil.copy(pom, Path(scratch) / "pom.xml")
        copied = Path(scratch) / "jars"
        command = [mvn, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={copied}"]
        answer = subprocess.run(
            [*command, "-DincludeScope=runtime"], cwd=scratch, capture_output=True, text=True, check=False
        )
        if answer.returncode != 0 or not any(copied.glob("kafka*.jar")):
            raise ConfigError(f"mvn could not fetch Kafka's jars: {(answer.stdout + answer.stderr)[-2000:]}")
        shutil.rmtree(folder / "jars", ignore_errors=True)
        copied.rename(folder / "jars")
