"""The real API process's parts served in a thread of the test, on a free port."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from services.api.__main__ import serve
from services.api.settings import ApiSettings
from tests.fixtures.brokers import skip_or_fail
from twinloop.process import StopSignal

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Served:
    """A running API; `stop` ends it, as SIGTERM would."""

    def __init__(self, settings: dict[str, Any]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        own = {**settings, "api": {**settings.get("api", {}), "port": self.port}}
        self._settings = ApiSettings(**own)
        self._stop = StopSignal()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout_s: float = 30.0) -> Served:
        self._thread.start()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            assert self._thread.is_alive(), self._error
            assert time.monotonic() < deadline, "the API is not ready"
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        assert self._error is None, self._error

    def _run(self) -> None:
        try:
            asyncio.run(serve(self._settings, self._stop))
        except BaseException as error:
            self._error = error


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium of this machine, driven by Playwright; skips with the reason where either is missing.

    Where TWINLOOP_REQUIRE names chromium it fails instead.
    """
    if importlib.util.find_spec("playwright") is None:
        skip_or_fail("chromium", "the package playwright is not installed")
    sync_api = importlib.import_module("playwright.sync_api")
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        names = ", ".join(BROWSERS)
        skip_or_fail(
            "chromium", f"no Chromium here: none of {names} is on the path (Debian: apt install chromium)"
        )
    with sync_api.sync_playwright() as playwright:
        # A sandbox needs a user that is not root; this browser opens nothing but 127.0.0.1.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
