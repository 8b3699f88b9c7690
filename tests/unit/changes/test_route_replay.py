"""The report of a change names ids and counts, counts each query once, and never says a text."""

from __future__ import annotations

from tests.unit.changes.documents import shipped_policy, small_documents, steps
from twinloop.changes.patching import apply_change
from twinloop.changes.route_replay import MAX_EXAMPLES, Question, route_report
from twinloop.routing.domain_choice import DomainChooser

BASE = small_documents()
MADE = apply_change(
    BASE,
    steps({"op": "add", "path": "/rules/domains/med/keywords/zorblax", "value": 4.0}),
    shipped_policy(),
    author="person",
)
BEFORE, AFTER = DomainChooser(BASE.rules), DomainChooser(MADE.rules)


def test_queries_that_would_go_elsewhere_are_counted_by_where_from_and_to() -> None:
    queries = [
        Question("q-1", "zorblax hurts"),
        Question("q-2", "nothing in it"),
        Question("q-3", "zorblax again", "fin"),
        Question("q-1", "zorblax hurts"),
    ]
    report = route_report(BEFORE, AFTER, queries=queries, probes=[], prompt_changed=False)
    assert (report.queries, report.fixed, report.moved) == (2, 1, 1)
    (move,) = report.moves
    assert (move.before, move.after, move.queries) == (BEFORE.choose("zorblax hurts"), "med", 1)
    assert [each.id for each in report.examples] == ["q-1"]
    assert "zorblax" not in report.model_dump_json()


def test_only_so_many_examples_are_named() -> None:
    queries = [Question(f"q-{n}", f"zorblax {n}") for n in range(3 * MAX_EXAMPLES)]
    report = route_report(BEFORE, AFTER, queries=queries, probes=[], prompt_changed=False)
    assert (report.moved, len(report.examples)) == (3 * MAX_EXAMPLES, MAX_EXAMPLES)


def test_probes_tell_whether_the_rules_agree_with_the_examination() -> None:
    probes = [
        Question("p-1", "zorblax hurts", "med"),
        Question("p-2", "zorblax", None),
        Question("p-3", "oh", "med"),
    ]
    report = route_report(BEFORE, AFTER, queries=[], probes=probes, prompt_changed=True)
    assert (report.probes, report.probes_right_before, report.probes_right_after) == (3, 0, 1)
    assert {each.id for each in report.moved_probes} == {"p-1", "p-2"}
    assert (report.unfixed_moved, report.prompt_changed) == (1, True)
