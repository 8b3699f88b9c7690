"""Only what is listed may change, only within its bounds, and gates are not in reach of any patch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from schemas.changes import MAX_OPERATIONS, PatchOperation
from tests.unit.changes.documents import ROOT, shipped_policy, small_documents, steps
from twinloop.changes.allowed_paths import AllowedPath, AuthorKind, ChangePolicy, to_pointer, to_tokens
from twinloop.changes.patching import apply_change, differences, inverse
from twinloop.changes.refusal import ChangeRefused


def refusal(
    *raw: dict[str, Any], author: AuthorKind = "person", policy: ChangePolicy | None = None
) -> ChangeRefused:
    with pytest.raises(ChangeRefused) as caught:
        apply_change(small_documents(), steps(*raw), policy or shipped_policy(), author=author)
    return caught.value


def places(node: Any, at: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from places(value, f"{at}/{name}")
    else:
        yield at


GATES = list(places(yaml.safe_load((ROOT / "configs/gatekeeper.yaml").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("author", ["person", "program"])
def test_no_threshold_of_a_gate_can_be_changed_by_a_proposal(author: AuthorKind) -> None:
    assert len(GATES) > 30
    assert any("canary" in path for path in GATES)
    for path in GATES:
        for root in ("", "/rules", "/prompt", "/gates"):
            step = {"op": "replace", "path": f"{root}{path}", "value": 0.99}
            assert refusal(step, author=author).code == "path"


@pytest.mark.parametrize(
    "path", ["/gates/qa/min_pass_rate", "/policy/canary", "/adapters/law", "/rules", "/prompt", "/"]
)
def test_a_list_cannot_even_name_what_is_no_part_of_rules_or_prompt(path: str) -> None:
    with pytest.raises(ValidationError, match="nothing else travels in a release"):
        AllowedPath(path=path, type="number", minimum=0, maximum=1)


def test_a_path_without_bounds_is_no_path() -> None:
    with pytest.raises(ValidationError, match="needs minimum and maximum"):
        AllowedPath(path="/rules/top_k", type="integer", minimum=1)


def test_an_empty_list_allows_nothing() -> None:
    step = {"op": "replace", "path": "/rules/top_k", "value": 3}
    assert refusal(step, policy=ChangePolicy()).code == "path"


def test_programs_may_change_only_what_names_them() -> None:
    allowed = {each.path for each in shipped_policy().allowed if "program" in each.authors}
    assert allowed == {
        "/rules/domains/*/keywords/*",
        "/rules/keyword_min_score",
        "/rules/similarity_threshold",
    }
    step = {"op": "add", "path": "/rules/domains/law/exemplars/-", "value": "Who holds the deed?"}
    assert refusal(step, author="program").code == "author"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5.5, "above the maximum 5"),
        (0, "below the minimum 0.1"),
        (True, "must be a number"),
        ("2", "must be a number"),
        (None, "must be a number"),
    ],
)
def test_a_value_has_the_type_and_the_bounds_of_its_place(value: Any, words: str) -> None:
    refused = refusal({"op": "add", "path": "/rules/domains/law/keywords/escrow", "value": value})
    assert refused.code == "bounds"
    assert words in str(refused)
    assert "/rules/domains/law/keywords/escrow" in str(refused)


def test_what_may_be_replaced_may_not_be_taken_out() -> None:
    refused = refusal({"op": "remove", "path": "/rules/similarity_threshold"})
    assert (refused.code, "only replace" in str(refused)) == ("bounds", True)


def test_small_steps_that_add_up_to_too_much_are_too_much() -> None:
    many = [{"op": "add", "path": f"/rules/domains/law/keywords/word{n}", "value": 1.0} for n in range(21)]
    assert refusal(*many, author="program").code == "bounds"
    made = apply_change(small_documents(), steps(*many), shipped_policy(), author="person")
    assert (
        len(made.rules.domains["law"].keywords) == len(small_documents().rules.domains["law"].keywords) + 21
    )


def test_a_patch_that_ends_where_it_began_changes_nothing() -> None:
    add = {"op": "add", "path": "/rules/domains/law/keywords/escrow", "value": 1.0}
    assert refusal(add, {"op": "remove", "path": "/rules/domains/law/keywords/escrow"}).code == "no-change"
    assert (
        refusal({"op": "replace", "path": "/rules/top_k", "value": small_documents().rules.top_k}).code
        == "no-change"
    )


def test_a_path_out_of_the_list_is_refused_even_where_it_changes_nothing() -> None:
    dim = {"op": "replace", "path": "/rules/embedder/dim", "value": small_documents().rules.embedder.dim}
    assert refusal(dim, {"op": "replace", "path": "/rules/top_k", "value": 5}).code == "path"


def test_a_failed_test_stops_the_patch() -> None:
    test = {"op": "test", "path": "/rules/top_k", "value": 9}
    refused = refusal(test, {"op": "replace", "path": "/rules/top_k", "value": 5})
    assert (refused.code, "operation 1, test /rules/top_k" in str(refused)) == ("not-applicable", True)


def test_a_result_the_router_could_not_use_is_refused() -> None:
    first = next(iter(small_documents().rules.domains["law"].keywords))
    twin = {"op": "add", "path": f"/rules/domains/law/keywords/{first.upper()}", "value": 1.0}
    assert refusal(twin).code == "invalid"


@pytest.mark.parametrize("op", ["move", "copy", "increment"])
def test_operations_that_hide_what_they_write_are_no_operations_here(op: str) -> None:
    with pytest.raises(ValidationError):
        PatchOperation.model_validate({"op": op, "path": "/rules/top_k", "from": "/rules/top_k"})


@pytest.mark.parametrize("value", [{"a": 1}, [1], 10**400, float("nan"), float("inf")])
def test_a_value_is_a_scalar_that_canonical_json_can_say(value: Any) -> None:
    with pytest.raises(ValidationError):
        PatchOperation.model_validate({"op": "add", "path": "/rules/top_k", "value": value})


@pytest.mark.parametrize("path", ["", "rules/top_k", "/rules/~2", "/" + "x" * 500])
def test_a_path_is_a_json_pointer(path: str) -> None:
    with pytest.raises(ValidationError):
        PatchOperation.model_validate({"op": "remove", "path": path})


def test_pointers_and_their_parts_say_the_same() -> None:
    for tokens in (("rules", "a/b"), ("rules", "m~n", ""), ("x",)):
        assert to_tokens(to_pointer(tokens)) == tokens


def test_another_order_of_a_list_is_a_difference() -> None:
    (found,) = differences({"rules": [1, 2]}, {"rules": [2, 1]})
    assert (found.pointer, found.operation) == ("/rules", "replace")


def test_a_branch_that_comes_or_goes_is_told_value_by_value() -> None:
    found = list(differences({"rules": {"a": {"b": 1, "c": [2]}}}, {"rules": {"d": {}}}))
    told = {(each.pointer, each.operation) for each in found}
    assert told == {("/rules/a/b", "remove"), ("/rules/a/c/-", "remove"), ("/rules/d", "add")}


def test_the_way_back_fits_into_one_proposal() -> None:
    base = small_documents()
    patch = steps(
        {"op": "remove", "path": "/rules/domains/law/exemplars/0"},
        {"op": "replace", "path": "/rules/top_k", "value": 5},
    )
    back = inverse(base, apply_change(base, patch, shipped_policy(), author="person"))
    assert 1 <= len(back) <= MAX_OPERATIONS
