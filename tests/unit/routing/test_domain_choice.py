from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import DOMAINS, Domain
from tests.unit.routing.states import RULES, A, B, canary, state
from twinloop.canonical import sha256_hex
from twinloop.errors import ArtifactError, NotReady
from twinloop.foundation_training.corpus import World, bank
from twinloop.routing.domain_choice import _ASCII_WORDS, DomainChooser
from twinloop.routing.rules import RouterRules, read_rules, rules_bytes, words_of
from twinloop.routing.rules_book import RulesBook

SHIPPED = Path(__file__).resolve().parents[3] / "configs" / "rules.json"


def rules(**domains: dict[str, Any]) -> RouterRules:
    priorities = {"law": 4, "med": 3, "fin": 2, "gen": 1}
    return RouterRules.model_validate(
        {
            "domains": {
                domain: {"priority": priorities[domain], **domains.get(domain, {})} for domain in DOMAINS
            }
        }
    )


def test_keywords_choose_whatever_their_case_and_punctuation() -> None:
    chooser = DomainChooser(rules(law={"keywords": {"notice period": 1}}, med={"keywords": {"half-life": 1}}))
    assert chooser.choose("The NOTICE  period?") == "law"
    assert chooser.choose("What is the half life of it") == "med"
    assert chooser.choose("a period of notice") == "gen"


def test_a_keyword_counts_once_however_often_it_is_said() -> None:
    chooser = DomainChooser(rules(law={"keywords": {"court": 2}}, fin={"keywords": {"loan": 1, "rate": 1.5}}))
    assert chooser.choose("court court court: which rate has the loan?") == "fin"


def test_a_choice_made_before_changes_none_made_later() -> None:
    told = rules(
        law={"keywords": {"notice period": 3, "court": 1}}, fin={"keywords": {"period": 1, "loan": 1}}
    )
    asked = [
        "a loan in court",
        "a period of notice",
        "the notice period",
        "period",
        "loan",
        "court: loan period",
    ]
    warm = DomainChooser(told)
    for text in [*asked, *asked, *reversed(asked)]:
        assert warm.choose(text) == DomainChooser(told).choose(text), text


def test_weights_add_up_exactly_whatever_their_size() -> None:
    fine = {"keywords": {"court": 0.5, "judge": 0.25, "appeal": 0.25, "bail": 5e-324}}
    chooser = DomainChooser(rules(law=fine, fin={"keywords": {"loan": 1, "bank rate": 100}}))
    assert chooser.choose("court and appeal of the bail judge, or a loan?") == "law"
    assert chooser.choose("a loan, and a court") == "fin"
    assert chooser.choose("bank rate or court, judge, appeal?") == "fin"


def test_below_the_least_score_keywords_are_silent() -> None:
    assert DomainChooser(rules(law={"keywords": {"court": 0.9}})).choose("the court") == "gen"


def test_a_tie_is_broken_by_likeness_and_else_by_priority() -> None:
    tied = {"law": {"keywords": {"term": 1}}, "fin": {"keywords": {"term": 1}}}
    assert DomainChooser(rules(**tied)).choose("which term") == "law"
    tied["fin"]["exemplars"] = ["which term has the loan"]
    assert DomainChooser(rules(**tied)).choose("which term has this loan") == "fin"


def test_where_keywords_are_silent_likeness_decides_above_its_threshold() -> None:
    chooser = DomainChooser(rules(med={"exemplars": ["what helps against a bad headache"]}))
    assert chooser.choose("what helps against my headache") == "med"
    assert chooser.choose("zebra crossing on monday") == "gen"


@pytest.mark.parametrize("text", ["", " ", "???", "\x00", "ß" * 8000])
def test_no_text_is_too_odd_to_be_placed(text: str) -> None:
    assert DomainChooser(read_rules(SHIPPED.read_bytes(), name="shipped")).choose(text) in DOMAINS


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_shipped_rules_know_the_questions_of_the_synthetic_world(domain: Domain) -> None:
    chooser = DomainChooser(read_rules(SHIPPED.read_bytes(), name="shipped"))
    facts = [*World.generate(7, domain, 60, attributes_per_entity=3).facts]
    facts += [fact for fact in bank() if fact.domain == domain]
    questions = [question for fact in facts for question in (*fact.questions(), fact.unseen_question())]
    right = sum(chooser.choose(question) == domain for question in questions)
    assert right >= 0.99 * len(questions)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "document"),
        (b'{"domains": {}}', "law"),
        (rules_bytes(rules(law={"keywords": {"court": 1}})).replace(b"court", b"!!!!!"), "holds no word"),
        (rules_bytes(rules()).replace(b'"version"', b'"surprise"'), "surprise"),
    ],
)
def test_unusable_rules_are_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        read_rules(data, name="those rules")


def test_one_keyword_spelled_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same words"):
        rules(law={"keywords": {"half life": 1, "Half-Life": 2}})


class Blobs:
    def __init__(self, *documents: RouterRules) -> None:
        self.blobs = {sha256_hex(rules_bytes(document)): rules_bytes(document) for document in documents}
        self.reads: list[str] = []

    def get(self, digest: str) -> bytes:
        self.reads.append(digest)
        if digest not in self.blobs:
            raise ArtifactError(f"no blob {digest}")
        return self.blobs[digest]


def test_the_rules_of_every_resident_release_are_read_once() -> None:
    blobs = Blobs(rules())
    (digest,) = blobs.blobs
    book = RulesBook(blobs.get)
    for epoch in (1, 2):
        book.prepare(state(epoch, rules={A: digest, B: digest}))
    assert blobs.reads == [digest]
    assert book.chooser(A) is book.chooser(B)
    assert book.problems == ()


def test_missing_rules_of_a_release_nobody_is_assigned_to_are_a_problem_and_no_more() -> None:
    blobs = Blobs(rules())
    (digest,) = blobs.blobs
    book = RulesBook(blobs.get)
    book.prepare(state(1, rules={A: digest, B: RULES}))
    assert B in book.problems[0]
    with pytest.raises(NotReady):
        book.chooser(B)


def test_missing_rules_of_a_release_in_use_are_not_ready() -> None:
    blobs = Blobs(rules())
    (digest,) = blobs.blobs
    with pytest.raises(NotReady, match=B):
        RulesBook(blobs.get).prepare(state(1, rules={A: digest, B: RULES}, canary=canary()))
    with pytest.raises(NotReady, match=A):
        RulesBook(blobs.get).prepare(state(1, rules={A: RULES, B: digest}))


@given(st.text(max_size=80))
def test_ascii_words_are_found_as_all_others_are(text: str) -> None:
    spelled = text.encode("ascii", "ignore").decode()
    assert spelled.encode().translate(_ASCII_WORDS).split() == [word.encode() for word in words_of(spelled)]
