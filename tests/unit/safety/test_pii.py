"""Structured personal data is found by shape and checksum; numbers of contracts, doses and reports are left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.safety.pii import PiiClassifier, find_pii, passes_luhn, passes_mod97, redact

FOUND = [
    ("write to jane.doe+x@mail.example.co.uk today", "EMAIL", "jane.doe+x@mail.example.co.uk"),
    ("Kontakt: müller@bücher.example.", "EMAIL", "müller@bücher.example"),
    ("card 4111 1111 1111 1111, thanks", "CARD", "4111 1111 1111 1111"),
    ("4111-1111-1111-1111", "CARD", "4111-1111-1111-1111"),
    ("amex 378282246310005 expired", "CARD", "378282246310005"),
    ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN", "DE89 3704 0044 0532 0130 00"),
    ("GB82WEST12345698765432", "IBAN", "GB82WEST12345698765432"),
    ("gb82 west 1234 5698 7654 32 and more words", "IBAN", "gb82 west 1234 5698 7654 32"),
    ("my ssn is 078 05 1120", "SSN", "078 05 1120"),
    ("SSN: 078051120", "SSN", "078051120"),
    ("078-05-1120 on file", "SSN", "078-05-1120"),
    ("call +1 (415) 555-2671 now", "PHONE", "+1 (415) 555-2671"),
    ("415-555-2671", "PHONE", "415-555-2671"),
    ("Tel. 030 901820", "PHONE", "030 901820"),
    ("ring 01.84.17.61.18", "PHONE", "01.84.17.61.18"),
    ("1-800-232-4636", "PHONE", "1-800-232-4636"),
    ("from 203.0.113.77:8080", "IP_ADDRESS", "203.0.113.77"),
    ("host 2001:db8::8a2e:370:7334 down", "IP_ADDRESS", "2001:db8::8a2e:370:7334"),
    ("key AKIAIOSFODNN7EXAMPLE leaked", "SECRET", "AKIAIOSFODNN7EXAMPLE"),
    ("MRN: 00123456", "RECORD_NUMBER", "00123456"),
    ("DOB 02/29/1980", "BIRTH_DATE", "02/29/1980"),
]
HARMLESS = [
    "Revenue was $1,234,567 in 2019 and $2,345,678 in 2018.",
    "Fiscal years 2017 2018 2019 2020",
    "between 2019-01-01 and 2019-12-31, or 12/31/2019",
    "Section 2.1.3.4 and clause 10.2.1 apply",
    "Take 500 mg every 8 hours for 10-14 days",
    "1234567890123456",
    "4111 1111 1111 1112",
    "The case number is 18-cv-03491",
    "version 1.2.3.4 at 12:30:45",
    "ISBN 978-3-16-148410-0",
    "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000",
    "user@localhost and @handle and a@b",
    "The war of 1939-1945 (1939-1940)",
    "75.5% of 1,000 patients, p < 0.0001",
    "DE00 3704 0044 0532 0130 00",
    "",
]


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_personal_data_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    assert [(found_kind, text[start:end]) for start, end, found_kind, _ in find_pii(text)] == [(kind, value)]


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_numbers_are_left_alone(text: str) -> None:
    assert find_pii(text) == []


def test_checksums_hold_for_published_examples() -> None:
    assert passes_luhn("79927398713")
    assert not passes_luhn("79927398710")
    assert passes_mod97("GB82WEST12345698765432")
    assert not passes_mod97("GB82WEST12345698765433")


@settings(max_examples=300)
@given(st.integers(10**14, 10**15 - 1))
def test_every_valid_visa_number_is_found_and_no_broken_one(body: int) -> None:
    payload = f"4{body}"[:15]
    check = next(digit for digit in "0123456789" if passes_luhn(payload + digit))
    good = f"pay with {payload}{check} please"
    wrong = f"pay with {payload}{(int(check) + 1) % 10} please"
    assert [kind for _, _, kind, _ in find_pii(good)] == ["CARD"]
    assert "CARD" not in [kind for _, _, kind, _ in find_pii(wrong)]


def test_redaction_keeps_the_rest_of_the_text() -> None:
    text = "Jane, jane@example.org, 415-555-2671, said hello."
    score = PiiClassifier().classify([text])[0]
    assert score.label
    assert score.score == 0.9
    assert redact(text, score.spans) == "Jane, [EMAIL], [PHONE], said hello."


def test_a_threshold_drops_what_is_less_sure() -> None:
    text = "MRN 1234567, card 4111111111111111"
    assert [span.kind for span in PiiClassifier(threshold=0.95).classify([text])[0].spans] == ["CARD"]
    assert PiiClassifier(threshold=0.95).version != PiiClassifier().version


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789+-(). @:xabGB,\n", max_size=200))
def test_findings_never_overlap_and_lie_inside_the_text(text: str) -> None:
    places = [place for start, end, _, _ in find_pii(text) for place in (start, end)]
    assert places == sorted(places)
    assert all(0 <= place <= len(text) for place in places)


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "a@", "a.", "1-", ":1", "GB12 ", "(1)", "+1 ", "a@b.c.", "-----BEGIN ", "eyJa"]
)
def test_hostile_repetition_costs_linear_time(unit: str) -> None:
    started = time.perf_counter()
    find_pii(unit * (50_000 // len(unit)))
    assert time.perf_counter() - started < 1.5
