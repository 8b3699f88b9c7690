"""A stream without tables leaves nothing on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinloop.bus.faust_app import build_app
from twinloop.bus.settings import KafkaSettings


@pytest.mark.asyncio
async def test_a_stream_needs_no_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = build_app(KafkaSettings(), group="twinloop.gatekeeper", partitions=4)
    await app.on_first_start()
    assert list(tmp_path.iterdir()) == []
