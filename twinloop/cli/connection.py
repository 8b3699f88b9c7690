"""How a command finds the installation it talks to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from twinloop.bus.reader import LogReader
from twinloop.bus.records import TopicPartition
from twinloop.errors import ConfigError
from twinloop.settings_loader import ServiceSettings, load_settings
from twinloop.signing import KeyRing, Signer, load_signer
from twinloop.stack.home import Home
from twinloop.topics import TopicCatalogue

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the installation; $TWINLOOP_HOME or .twinloop by default."),
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", help="Settings file; repeatable. Default: the installation's profile.yaml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, for programs.")]


class Connection:
    """Settings, topics and keys of one installation."""

    def __init__(self, home: Path | None, configs: list[Path] | None) -> None:
        self.home = Home(home) if home is not None else Home.default()
        files = list(configs or [])
        if not files and self.home.profile.exists():
            files = [self.home.profile]
        if not files:
            raise ConfigError(
                f"{self.home.profile}: no installation here; start one with `twinloop up`, or name one with --home or "
                "--config"
            )
        self.files = tuple(files)
        self.settings = load_settings(ServiceSettings, *files)
        self.topics = TopicCatalogue.under(self.settings.topics)

    @property
    def arguments(self) -> list[str]:
        """What tells one of the project's programs about the same installation."""
        return [each for path in self.files for each in ("--config", str(path))]

    @property
    def ring(self) -> KeyRing:
        return KeyRing.load(self.settings.keys.public_path)

    def signer(self, key_id: str) -> Signer:
        return load_signer(self.settings.keys.folder, key_id)

    def run(self) -> dict[str, Any]:
        """What `up` wrote about the running processes; empty where they run elsewhere."""
        if not self.home.run_file.exists():
            return {}
        return dict(json.loads(self.home.run_file.read_text(encoding="utf-8")))

    def log(self, topic: str, *, from_end: bool = False) -> LogReader:
        """A reader of a topic of one partition, where order matters."""
        partition = TopicPartition(self.topics.name(topic), 0)
        return LogReader(
            self.settings.kafka, partitions=[partition], start="end" if from_end else "beginning"
        )
