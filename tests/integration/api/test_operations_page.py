"""The operations page in a real headless Chromium before a real gatekeeper: what is seen and done at night."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from schemas.changes import (
    ChangeReviewed,
    ChangeStatus,
    DomainMove,
    PatchOperation,
    ReleaseDocuments,
    RouteReport,
)
from schemas.feedback import QuarantinedFeedback
from schemas.releases import ReleaseProposed
from services.trainer.core.forgetting_matrix import forgetting_matrix
from tests.integration.api.served import Served, chromium
from tests.integration.gatekeeper.conftest import Running
from tests.integration.gatekeeper.world import World
from tests.unit.api.desk import example
from twinloop.canonical import digest_of
from twinloop.changes.change_log import decode_change
from twinloop.changes.signed import signed_proposal

SLOW_CANARY: dict[str, Any] = {
    "policy": {
        "canary": {"min_shadow": 120, "ci_floor": 120},
        "watch": {"progress_s": 0.4},
        "ramp": {"basis_points": [1000]},
        "promote": {"bake_s": 60.0},
    }
}
COMPLETE = "performance.getEntriesByName('board-complete')[0]?.startTime ?? null"

NAMELESS = """
[...document.querySelectorAll('button, a[href], input, textarea, svg[role=img], [role=region]')]
  .filter(node => node.checkVisibility())
  .filter(node => !(node.innerText?.trim() || node.getAttribute('aria-label') || node.labels?.length))
  .map(node => node.outerHTML)
"""
"""What a screen reader could not name."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Page:
    """One tab, and what went wrong in it."""

    def __init__(self, browser: Any, served: Served) -> None:
        self._context = browser.new_context(viewport={"width": 1360, "height": 900})
        # As at an address that is neither https nor localhost: browsers leave it out there.
        self._context.add_init_script("delete Crypto.prototype.randomUUID")
        self.tab = self._context.new_page()
        self.tab.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.foreign: list[str] = []
        self.tab.on("request", lambda request: self._note(request.url, served.address))
        self.address = served.address

    def _note(self, url: str, own: str) -> None:
        if not url.startswith(own):
            self.foreign.append(url)

    def sign_in(self, token: str) -> None:
        self.tab.goto(self.address)
        self.tab.fill("#token", token)
        self.tab.keyboard.press("Enter")
        self.tab.wait_for_selector("#twins article")
        self.tab.wait_for_selector("#live.on")

    def text(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))

    def until(self, script: str, *, timeout_s: float = 20.0) -> None:
        # Playwright's own `wait_for_function` evaluates strings in the page, which the page's policy forbids.
        deadline = time.monotonic() + timeout_s
        while not self.tab.evaluate(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            self.tab.wait_for_timeout(50)

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[Served], Page]]:
    pages: list[Page] = []

    def begin(served: Served) -> Page:
        pages.append(Page(browser, served))
        return pages[-1]

    yield begin
    for page in pages:
        page.close()


@pytest.mark.slow
def test_it_follows_a_canary_live_and_a_rollback_by_click_is_effective(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start(**SLOW_CANARY)
    world.start(queries_per_s=300)
    boot = world.wait_for_kind("genesis").state.active_release
    page = open_page(serve())
    page.sign_in(tokens["olga"])
    assert boot[:8] in page.text("#twins .active")
    candidate = world.release(2, parent=boot)
    time.sleep(1.5)
    world.propose(candidate)

    # The canary appears, its gates fill, and its evidence grows, without a reload.
    page.until("document.querySelector('#now')?.innerText.includes('canary')")
    page.until("document.querySelectorAll('table.gates tbody tr').length > 8")
    first = page.tab.evaluate("document.querySelectorAll('path.series')[0]?.getAttribute('d').length ?? 0")
    page.until(f"(document.querySelectorAll('path.series')[0]?.getAttribute('d').length ?? 0) > {first}")
    assert candidate[:8] in page.text("#twins article:not(.active)")

    # Promoted: the roles trade on the page, and the reason stands in one readable line.
    page.until(f"document.querySelector('#twins .active')?.innerText.includes('{candidate[:8]}')")
    assert "promote" in page.text("#decisions li:first-child")

    # By keyboard alone: to the button, the reason, and through the question.
    page.tab.focus("#do-rollback")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("dialog[open]")
    assert boot[:8] in page.text("#dialog-text")
    page.tab.keyboard.type("wrong dosages in med")
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Enter")
    page.until(f"document.querySelector('#twins .active')?.innerText.includes('{boot[:8]}')")
    world.wait_for_kind("rollback")
    state = world.routing()
    assert state is not None
    assert state.active_release == boot
    assert candidate in state.revoked
    assert "by olga: wrong dosages in med" in page.text("#decisions li:first-child")
    assert page.faults == []
    assert page.foreign == []


@pytest.mark.slow
def test_it_loads_within_a_second_and_shows_what_goes_wrong(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start()
    world.wait_for_kind("genesis")
    served = serve()
    page = open_page(served)

    page.tab.goto(served.address)
    page.tab.fill("#token", "tl_" + "x" * 43)
    page.tab.keyboard.press("Enter")
    page.until("document.querySelector('#sign-in-error').innerText.includes('not known')")
    assert page.tab.evaluate("sessionStorage.length") == 0

    # A token of this tab signs in again at a reload: from navigation to the whole board.
    page.sign_in(tokens["vera"])
    times = []
    for _ in range(3):
        page.tab.reload()
        page.until(f"({COMPLETE}) !== null")
        times.append(page.tab.evaluate(COMPLETE))
    assert sorted(times)[1] < 1000, times

    # A viewer's buttons say why they cannot be used.
    disabled = page.tab.evaluate(
        "[...document.querySelectorAll('#actions button')].map(b => [b.disabled, b.title])"
    )
    assert disabled
    assert all(is_off and title.startswith("needs the role") for is_off, title in disabled)

    # What the gatekeeper refuses is shown where it was asked.
    operator = open_page(served)
    operator.sign_in(tokens["olga"])
    assert operator.tab.evaluate(NAMELESS) == []
    assert {"sign-out", "do-pause", "decisions", "releases"} <= reached_by_tab(operator)
    operator.tab.click("#do-pause")
    operator.tab.fill("#reason", "look")
    operator.tab.click("#dialog-go")
    operator.tab.wait_for_selector("#do-resume")
    world.order("resume")
    operator.tab.wait_for_selector("#do-pause")
    operator.tab.click("#do-pause")
    operator.tab.fill("#reason", "look again")
    world.order("pause")
    page.until("document.querySelector('#now').innerText.includes('paused')")
    operator.tab.click("#dialog-go")
    operator.until("document.querySelector('#dialog-error').innerText.includes('already')")
    operator.tab.keyboard.press("Escape")

    # An API that goes away is told at once.
    served.stop()
    page.until("!document.querySelector('#banner').hidden")
    assert "does not answer" in page.text("#banner")
    assert page.text("#live") == "not connected"
    assert page.faults == operator.faults == []


def reached_by_tab(page: Page) -> set[str]:
    """Where the Tab key leads."""
    found = set()
    for _ in range(25):
        page.tab.keyboard.press("Tab")
        found.add(str(page.tab.evaluate("document.activeElement.id")))
    return found


@pytest.mark.slow
def test_a_proposed_change_is_read_and_approved_by_another_person(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start()
    world.wait_for_kind("genesis")
    served = serve(order_wait_s=0.5)
    author, approver = open_page(served), open_page(served)
    author.sign_in(tokens["olga"])
    approver.sign_in(tokens["anna"])
    proposal = signed_proposal(
        world.signer("operator-1"),
        [PatchOperation(op="add", path="/rules/domains/law/keywords/escrow", value=2.0)],
        change="pr-1",
        author="olga",
        base=ReleaseDocuments(rules="1" * 64, prompt="2" * 64),
        reason="escrow is law",
        via="cli",
        now_ms=world.now_ms(),
    )
    report = RouteReport(
        queries=1800,
        fixed=0,
        moved=3,
        moves=(DomainMove(before="gen", after="law", queries=3),),
        probes=200,
        probes_right_before=198,
        probes_right_after=199,
    )
    world.send("changes", proposal, partition=0)
    world.send(
        "changes", ChangeStatus(change="pr-1", stage="open", report=report, at=world.now_ms()), partition=0
    )

    # It appears without a reload; its author is not asked to approve it.
    for page in (author, approver):
        page.until("document.querySelector('[data-change=\"pr-1\"]') !== null")
        shown = page.text("#review")
        assert "add /rules/domains/law/keywords/escrow = 2" in shown
        assert "3 of 1,800 recorded queries would go elsewhere (gen → law: 3)" in shown
        assert page.tab.evaluate(NAMELESS) == []
    assert author.tab.is_disabled("[data-change] button.primary")
    approver.tab.click("[data-change] button.primary")
    approver.tab.fill("#reason", "report read")
    approver.tab.click("#dialog-go")
    world.wait_for(lambda: any(isinstance(decode_change(r), ChangeReviewed) for r in world.read("changes")))
    (review,) = [
        event for event in map(decode_change, world.read("changes")) if isinstance(event, ChangeReviewed)
    ]
    assert (review.reviewer, review.verdict, review.key_id) == ("anna", "approve", "approver-1")
    assert review.proposal == digest_of(proposal)
    assert author.faults == approver.faults == []


@pytest.mark.slow
def test_what_waits_for_a_person_appears_without_a_reload_and_an_approval_says_what_it_does(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start(policy={"promote": {"force_approvers": 2}, "canary": {"min_shadow": 5000}})
    world.start(queries_per_s=60)
    boot = world.wait_for_kind("genesis").state.active_release
    page = open_page(serve())
    page.sign_in(tokens["anna"])
    time.sleep(1.5)
    candidate = world.release(2, parent=boot)
    world.propose(candidate)
    world.wait_for_kind("canary")
    page.until("document.querySelector('#do-approve')?.disabled === false")
    page.tab.click("#do-approve")
    assert "may be promoted once every gate has cleared" in page.text("#dialog-text")

    # Somebody forces it while the question stands there: no decision says so, and yet both places do.
    world.order("promote", key_id="approver-1")
    page.until("document.querySelector('#dialog-text').innerText.includes('ada has forced')")
    assert "past the gates" in page.text("#dialog-text")
    page.tab.keyboard.press("Escape")
    page.until("document.querySelector('#review').innerText.includes('ada wants to promote')")

    doubtful = QuarantinedFeedback.model_validate(example("feedback.quarantine/v1/injection.json"))
    world.send("feedback.quarantine", doubtful, partition=0)
    page.until(f"document.querySelector('#review').innerText.includes({doubtful.feedback.question!r})")
    assert page.faults == []


@pytest.mark.slow
def test_it_misses_no_decision_while_it_loads_and_begins_anew_with_another_log(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start()
    world.wait_for_kind("genesis")
    served = serve()
    page = open_page(served)
    # The first look at the history came just before the decision was logged.
    page.tab.route("**/history*", lambda route: route.fulfill(json={"decisions": [], "before": None}))
    page.sign_in(tokens["vera"])
    page.until("document.querySelector('#decisions li')?.innerText.includes('genesis')")

    # An embedded installation that was started again has another log: nothing known of the old one holds.
    status = httpx.get(
        f"{served.address}/status", headers={"Authorization": f"Bearer {tokens['vera']}"}
    ).json()
    event = f"event: status\ndata: {json.dumps({**status, 'incarnation': 'f' * 32})}\n\n"
    other = open_page(served)
    loads: list[str] = []
    other.tab.on("load", lambda _: loads.append("load"))
    other.tab.route(
        "**/decisions*", lambda route: route.fulfill(content_type="text/event-stream", body=event), times=1
    )
    other.sign_in(tokens["vera"])
    while len(loads) < 2:
        other.tab.wait_for_event("load")
    other.until("document.querySelector('#live.on') !== null")
    assert page.faults == other.faults == []
    assert len(loads) == 2


@pytest.mark.slow
def test_what_a_release_kept_of_earlier_updates_is_opened_by_keyboard_and_stays_open(
    world: World,
    start: Callable[..., Running],
    serve: Callable[..., Served],
    tokens: dict[str, str],
    open_page: Callable[[Served], Page],
) -> None:
    start()
    boot = world.wait_for_kind("genesis").state.active_release
    matrix = forgetting_matrix(
        {"law": {"forgetting": [{"update": boot, "rows": 32, "before": 0.92, "after": 0.75}]}}
    )
    value = example("releases/v1/candidate.json")
    value["evidence"]["metrics"]["forgetting"] = [row.to_json() for row in matrix]
    world.send("releases", ReleaseProposed.model_validate(value), partition=0)
    page = open_page(serve())
    page.sign_in(tokens["olga"])
    page.until("document.querySelector('#releases .matrix summary') !== null")
    page.tab.focus("#releases .matrix summary")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#releases .matrix tbody")
    shown = page.text("#releases .matrix tbody tr:has(.id)")
    assert shown.split() == ["law", "update", boot[:8], "32", "92.0", "%", "75.0", "%"]
    assert "as parent" in page.text("#releases .matrix tbody")
    assert page.tab.evaluate(NAMELESS) == []

    # A decision draws the table anew; who reads it by keyboard stays where they were.
    page.tab.evaluate("document.querySelector('#releases .matrix').isOld = true")
    world.order("pause")
    page.until("document.querySelector('#releases .matrix').isOld === undefined")
    assert page.tab.evaluate("document.querySelector('#releases .matrix details').open")
    assert page.tab.evaluate("document.activeElement.matches('#releases .matrix summary')")
    assert page.faults == []
