"""People at the operations page: tabs of a real Chromium before the API and the gatekeeper of one world."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.integration.api.served import Served
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World


class Given(NamedTuple):
    """One order as the page sent it."""

    path: str
    body: Any


class Page:
    """One tab, what it ordered, and what went wrong in it."""

    def __init__(self, browser: Any, served: Served) -> None:
        self._context = browser.new_context(viewport={"width": 1360, "height": 900})
        # As at an address that is neither https nor localhost: browsers leave it out there.
        self._context.add_init_script("delete Crypto.prototype.randomUUID")
        self.tab = self._context.new_page()
        self.tab.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.foreign: list[str] = []
        self.given: list[Given] = []
        self.tab.on("request", self._note)
        self.address = served.address

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self.address):
            self.foreign.append(request.url)
        elif request.method == "POST":
            self.given.append(Given(urlsplit(request.url).path, request.post_data_json))

    def sign_in(self, token: str) -> None:
        self.tab.goto(self.address)
        self.tab.fill("#token", token)
        self.tab.keyboard.press("Enter")
        self.tab.wait_for_selector("#twins article")
        self.tab.wait_for_selector("#live.on")

    def ask(self, button: str, reason: str) -> None:
        """Click a button and fill in the reason; the question stays open."""
        self.tab.click(button)
        self.tab.fill("#reason", reason)

    def order(self, button: str, reason: str) -> None:
        """Click a button and through its question."""
        self.ask(button, reason)
        self.tab.click("#dialog-go")

    def order_by_keyboard(self, button: str, reason: str) -> str:
        """The same without a mouse; returns what the question said."""
        self.tab.focus(button)
        self.tab.keyboard.press("Enter")
        self.tab.wait_for_selector("dialog[open]")
        said = self.text("#dialog-text")
        self.tab.keyboard.type(reason)
        self.tab.keyboard.press("Tab")
        self.tab.keyboard.press("Tab")
        self.tab.keyboard.press("Enter")
        return said

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))

    def until(self, script: str, *, timeout_s: float = 20.0) -> None:
        # Playwright's own `wait_for_function` evaluates strings in the page, which the page's policy forbids.
        deadline = time.monotonic() + timeout_s
        while not self.tab.evaluate(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            self.tab.wait_for_timeout(50)

    def until_says(self, selector: str, words: str, *, timeout_s: float = 20.0) -> None:
        """Wait until the first such element is there and has these words."""
        self.until(
            f"document.querySelector({selector!r})?.innerText.includes({words!r})", timeout_s=timeout_s
        )

    def close(self) -> None:
        self._context.close()


class Operations:
    """A gatekeeper, an API and the tabs before it; `begin` comes first."""

    def __init__(
        self,
        browser: Any,
        world: World,
        start: Callable[..., Running],
        serve: Callable[..., Served],
        tokens: dict[str, str],
    ) -> None:
        self.world, self.tokens = world, tokens
        self._browser, self._start, self._serve = browser, start, serve
        self._pages: list[Page] = []
        self.served: Served

    def begin(self, *, queries_per_s: int = 0, order_wait_s: float | None = None, **gatekeeper: Any) -> str:
        """Start everything but the browser; returns the release that serves first."""
        self._start(**gatekeeper)
        if queries_per_s:
            self.world.start(queries_per_s=queries_per_s)
        boot = self.world.wait_for_kind("genesis").state.active_release
        self.served = self._serve(**({} if order_wait_s is None else {"order_wait_s": order_wait_s}))
        return boot

    def tab(self) -> Page:
        """A new tab that nobody has signed in to."""
        self._pages.append(Page(self._browser, self.served))
        return self._pages[-1]

    def tab_of(self, holder: str) -> Page:
        """A new tab in which this person is signed in."""
        page = self.tab()
        page.sign_in(self.tokens[holder])
        return page

    def propose(self, *, parent: str) -> str:
        """A candidate that every worker has; needs users from `begin`."""
        # Workers say every second what they have; a candidate proposed before is examined late.
        time.sleep(1.5)
        candidate = self.world.release(2, parent=parent)
        self.world.propose(candidate)
        return candidate

    def close(self) -> None:
        """Close every tab; fails where one had an error or asked another host for anything."""
        for page in self._pages:
            page.close()
        assert [page.faults for page in self._pages if page.faults] == []
        assert [page.foreign for page in self._pages if page.foreign] == []
