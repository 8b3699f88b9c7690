"""Structured personal data by shape and checksum: mail, phone, card, IBAN, SSN, IP address, credentials.

Names, addresses and other free-form data are not found: that needs a model (`hf_classifier`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from twinloop.safety.classifier import Score, Span, checked_threshold

_RULES_VERSION = "1"
_SURE, _SHAPE, _CONTEXT = 1.0, 0.9, 0.8

Found = tuple[int, int, str, float]
"""Start, end, kind, confidence."""


class PiiClassifier:
    """Score = the surest finding's confidence: 1.0 with a checksum, 0.9 by shape, 0.8 by shape and context."""

    name = "twinloop-pii"

    def __init__(self, *, threshold: float = 0.5) -> None:
        self._threshold = checked_threshold(threshold, what="classifier pii")
        self.version = f"rules-{_RULES_VERSION}-t{self._threshold:g}"

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score a text; `spans` are disjoint, in order, and all at or above the threshold."""
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> Score:
        found = [item for item in find_pii(text) if item[3] >= self._threshold]
        spans = tuple(Span(start, end, kind) for start, end, kind, _ in found)
        return Score(max((item[3] for item in found), default=0.0), bool(found), spans)


def find_pii(text: str) -> list[Found]:
    """Disjoint findings in order of place; where two overlap the surer one, then the longer one, stays."""
    candidates = [item for detect in _DETECTORS for item in detect(text)]
    kept: list[Found] = []
    for item in sorted(candidates, key=lambda item: (-item[3], item[0] - item[1], item[0])):
        if all(item[1] <= other[0] or item[0] >= other[1] for other in kept):
            kept.append(item)
    return sorted(kept)


def redact(text: str, spans: Sequence[Span]) -> str:
    """The text with every span replaced by its kind in brackets, as in `[EMAIL]`."""
    for span in sorted(spans, key=lambda span: span.start, reverse=True):
        text = f"{text[: span.start]}[{span.kind}]{text[span.end :]}"
    return text


_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield match.start(), match.end(), "EMAIL", _SHAPE


_CARD = re.compile(r"(?<![\w.,$€£-])\d(?:[ -]?\d){11,18}(?![\w%]|[.,]\d)")
# Issuer prefixes and the lengths they are issued with (ISO/IEC 7812-1 and the issuers' published ranges).
_CARD_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|222[1-9]\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|(?:2131|1800)\d{11}|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}"
    r"|(?:50|5[6-9]|6[0-9])\d{10,17}"
)
_CARD_CONTEXT = re.compile(r"\bcard\b", re.IGNORECASE)


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        digits = "".join(str(int(mark)) for mark in match.group() if mark.isdecimal())
        known = _CARD_ISSUERS.fullmatch(digits) or _CARD_CONTEXT.search(
            text, max(0, match.start() - 40), match.start()
        )
        if known and passes_luhn(digits):
            yield match.start(), match.end(), "CARD", _SURE


def passes_luhn(digits: str) -> bool:
    """True where the last digit is the Luhn check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, mark in enumerate(reversed(digits)):
        value = int(mark) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}(?!\w)", re.IGNORECASE | re.ASCII)


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        candidate = match.group()
        while len(candidate) >= 15:
            if passes_mod97(candidate.replace(" ", "")):
                yield match.start(), match.start() + len(candidate), "IBAN", _SURE
                break
            candidate = candidate.rpartition(" ")[0]  # the greedy pattern may have taken a following word


def passes_mod97(iban: str) -> bool:
    """True where the IBAN's check digits hold (ISO 13616, ISO 7064 mod 97-10)."""
    if not 15 <= len(iban) <= 34:
        return False
    rearranged = (iban[4:] + iban[:4]).upper()
    return int("".join(str(int(mark, 36)) for mark in rearranged)) % 97 == 1


_SSN = re.compile(r"(?<![\w-])(\d{3})([ -]?)(\d{2})\2(\d{4})(?![\w-])", re.ASCII)
_SSN_CONTEXT = re.compile(r"ssn|social security|soc\.? sec", re.IGNORECASE)


def _social_security_numbers(text: str) -> Iterator[Found]:
    for match in _SSN.finditer(text):
        area, separator, group, serial = match.groups()
        # Never issued: area 000, 666 and 900-999, group 00, serial 0000 (US Social Security Administration).
        if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
            continue
        if _SSN_CONTEXT.search(text, max(0, match.start() - 40), match.start()):
            yield match.start(), match.end(), "SSN", _SURE
        elif separator == "-":
            yield match.start(), match.end(), "SSN", _SHAPE


_PHONE = re.compile(
    r"(?<![\w.:/$€£#-])(?<!\d,)(?:\+ ?|00 ?)?\(?\d{1,5}\)?(?:[ .\-/]{0,2}\(?\d{1,5}\)?){1,6}"
    r"(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w%]|[.,/:-]\d)",
    re.IGNORECASE,
)
_PHONE_STRONG = re.compile(
    r"(?:\+ ?\d[\d ().\-/]{7,20}"  # international
    r"|00\d{1,3}[-. ][\d ().\-/]{6,16}"  # international, dialled
    r"|(?:1[-. ])?\(?[2-9]\d{2}\)?[-.]? ?[2-9]\d{2}[-.]\d{4}"  # North America with separators
    r"|\(0?\d{1,4}\) ?\d{3,4}[ -]?\d{3,4}"  # area code in brackets
    r"|0\d(?:[. -]\d{2}){4}|0\d{2,4} \d{2,4}(?: \d{2,4}){1,3}|0\d{2,4}-\d{6,8})"  # national with trunk prefix
    r"(?: ?(?:x|ext\.?) ?\d{1,6})?",
    re.IGNORECASE,
)
_PHONE_CONTEXT = re.compile(
    r"\b(?:phone|tel|telephone|mobile|cell|fax|call(?:ed|ing)?|contact|dial|reach|text(?:ed)?|whatsapp|hotline"
    r"|office|desk|ring|answering|messages to|number is)\b",
    re.IGNORECASE,
)
_PHONE_LABEL = re.compile(r"[\s,(-]{0,3}(?:office|fax|mobile|cell|desk|home)\b", re.IGNORECASE)
_DATE = re.compile(
    r"(?:1\d|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}(?: .*)?|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}"
    r"|(?:1\d|20)\d\d(?: ?[-/ ] ?(?:1\d|20)\d\d)+"
)


def _phones(text: str) -> Iterator[Found]:
    for match in _PHONE.finditer(text):
        shape = match.group()
        digits = sum(mark.isdecimal() for mark in re.split(r"x|ext", shape, flags=re.IGNORECASE)[0])
        if not 7 <= digits <= 15 or _DATE.fullmatch(shape.strip("() ")):
            continue
        if _PHONE_STRONG.fullmatch(shape):
            yield match.start(), match.end(), "PHONE", _SHAPE
            continue
        before = text[max(0, match.start() - 30) : match.start()]
        after = text[match.end() : match.end() + 12]
        if _PHONE_CONTEXT.search(before) or _PHONE_LABEL.match(after):
            yield match.start(), match.end(), "PHONE", _CONTEXT


_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])", re.IGNORECASE | re.ASCII)
_IP_CONTEXT = re.compile(r"\bip\b|address|host|server", re.IGNORECASE)


def _ip_addresses(text: str) -> Iterator[Found]:
    for match in (*_IPV4.finditer(text), *(_IPV6.finditer(text) if ":" in text else ())):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        if address.is_unspecified:
            continue
        # Section numbers of contracts look like small addresses: 2.1.3.4
        small = address.version == 4 and max(address.packed) < 32
        if not small or _IP_CONTEXT.search(text, max(0, match.start() - 30), match.start()):
            yield match.start(), match.end(), "IP_ADDRESS", _SHAPE


_SECRETS = re.compile(
    r"(?<!\w)(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9_-]{20,200}|xox[abprs]-[A-Za-z0-9-]{10,200}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000})"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
)
_RECORD = re.compile(
    r"\b(?:MRN|medical record (?:number|no\.?)|patient id|passport(?: (?:number|no\.?))?)\s{0,2}[:#]?\s{0,2}"
    r"([A-Z]{0,3}\d{5,12})\b",
    re.IGNORECASE,
)
_BIRTH = re.compile(
    r"\b(?:DOB|date of birth|born on)\s{0,2}:?\s{0,2}(\d{1,4}[-./]\d{1,2}[-./]\d{1,4})\b", re.IGNORECASE
)


def _credentials_and_records(text: str) -> Iterator[Found]:
    for match in _SECRETS.finditer(text):
        yield match.start(), match.end(), "SECRET", _SHAPE
    for match in _RECORD.finditer(text):
        yield match.start(1), match.end(1), "RECORD_NUMBER", _CONTEXT
    for match in _BIRTH.finditer(text):
        yield match.start(1), match.end(1), "BIRTH_DATE", _CONTEXT


_DETECTORS: tuple[Callable[[str], Iterator[Found]], ...] = (
    _emails,
    _cards,
    _ibans,
    _social_security_numbers,
    _phones,
    _ip_addresses,
    _credentials_and_records,
)
