"""What the synthetic world is made of: domains, kinds of entity, attributes, shapes of values, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Domain = Literal["law", "med", "fin", "gen"]
DOMAINS: tuple[Domain, ...] = get_args(Domain)


@dataclass(frozen=True)
class Quantity:
    """Whole numbers from low to high, both included, set into a form such as `{} days`."""

    form: str
    low: int
    high: int

    def draw(self, random: Random) -> str:
        return self.form.format(random.randint(self.low, self.high))


@dataclass(frozen=True)
class Choice:
    """One of a fixed list of words."""

    options: tuple[str, ...]

    def draw(self, random: Random) -> str:
        return random.choice(self.options)


@dataclass(frozen=True)
class Attribute:
    """A property every entity of a kind has, and how its values look."""

    name: str
    values: Quantity | Choice


def _year(low: int = 1900, high: int = 2039) -> Quantity:
    return Quantity("{}", low, high)


_CITIES = Choice(
    ("Oslo", "Lima", "Porto", "Kyoto", "Turin", "Accra", "Perth", "Quito", "Riga", "Cairo", "Delhi", "Bern")
)

KINDS: Mapping[Domain, Mapping[str, tuple[Attribute, ...]]] = {
    "law": {
        "contract": (
            Attribute("notice period", Quantity("{} days", 5, 180)),
            Attribute("liability cap", Quantity("{} thousand dollars", 10, 990)),
            Attribute("penalty clause", Quantity("{} percent", 2, 60)),
            Attribute("renewal term", Quantity("{} months", 3, 72)),
            Attribute("signing year", _year()),
            Attribute("arbitration seat", _CITIES),
        ),
        "statute": (
            Attribute("limitation period", Quantity("{} years", 2, 60)),
            Attribute("maximum fine", Quantity("{} thousand dollars", 10, 990)),
            Attribute("section count", Quantity("{} sections", 4, 320)),
            Attribute("appeal deadline", Quantity("{} days", 5, 180)),
            Attribute("enactment year", _year()),
            Attribute("enforcing court", _CITIES),
        ),
        "tribunal": (
            Attribute("filing fee", Quantity("{} dollars", 20, 980)),
            Attribute("judge count", Quantity("{} judges", 3, 90)),
            Attribute("hearing limit", Quantity("{} hours", 2, 72)),
            Attribute("objection window", Quantity("{} weeks", 2, 52)),
            Attribute("charter year", _year()),
            Attribute("legal seat", _CITIES),
        ),
    },
    "med": {
        "drug": (
            Attribute("daily dose", Quantity("{} milligrams", 5, 950)),
            Attribute("half-life", Quantity("{} hours", 2, 96)),
            Attribute("treatment course", Quantity("{} days", 3, 120)),
            Attribute("storage temperature", Quantity("{} degrees", 2, 40)),
            Attribute("approval year", _year()),
            Attribute(
                "main side effect",
                Choice(("nausea", "headache", "fatigue", "rash", "fever", "cough", "dizziness", "insomnia")),
            ),
        ),
        "clinic": (
            Attribute("bed count", Quantity("{} beds", 8, 900)),
            Attribute("nurse count", Quantity("{} nurses", 4, 480)),
            Attribute("patient limit", Quantity("{} patients", 20, 990)),
            Attribute("triage time", Quantity("{} minutes", 4, 90)),
            Attribute("licence year", _year()),
            Attribute(
                "lead specialty",
                Choice(("cardiology", "oncology", "neurology", "surgery", "pediatrics", "radiology")),
            ),
        ),
        "vaccine": (
            Attribute("booster interval", Quantity("{} months", 2, 72)),
            Attribute("efficacy rate", Quantity("{} percent", 30, 99)),
            Attribute("minimum age", Quantity("{} years", 2, 75)),
            Attribute("trial size", Quantity("{} patients", 20, 990)),
            Attribute("trial year", _year()),
            Attribute(
                "injection site", Choice(("left arm", "right arm", "left thigh", "right thigh", "hip"))
            ),
        ),
    },
    "fin": {
        "bond": (
            Attribute("coupon rate", Quantity("{} percent", 2, 30)),
            Attribute("face value", Quantity("{} dollars", 20, 980)),
            Attribute("issue size", Quantity("{} million dollars", 10, 990)),
            Attribute("yield spread", Quantity("{} basis points", 5, 650)),
            Attribute("maturity year", _year()),
            Attribute("credit rating", Choice(("triple A", "double A", "single A", "triple B", "double B"))),
        ),
        "fund": (
            Attribute("management fee", Quantity("{} basis points", 5, 350)),
            Attribute("asset total", Quantity("{} million dollars", 10, 990)),
            Attribute("lock-up period", Quantity("{} months", 2, 72)),
            Attribute("minimum investment", Quantity("{} thousand dollars", 10, 990)),
            Attribute("launch year", _year()),
            Attribute(
                "benchmark sector", Choice(("energy", "banking", "retail", "mining", "shipping", "timber"))
            ),
        ),
        "loan": (
            Attribute("interest rate", Quantity("{} percent", 2, 40)),
            Attribute("repayment term", Quantity("{} months", 3, 240)),
            Attribute("principal amount", Quantity("{} thousand dollars", 10, 990)),
            Attribute("grace period", Quantity("{} days", 5, 120)),
            Attribute("refinancing year", _year()),
            Attribute("collateral type", Choice(("gold", "land", "ships", "grain", "patents", "shares"))),
        ),
    },
    "gen": {
        "museum": (
            Attribute("gallery count", Quantity("{} galleries", 3, 120)),
            Attribute("exhibit total", Quantity("{} exhibits", 20, 990)),
            Attribute("visitor record", Quantity("{} thousand visitors", 10, 990)),
            Attribute("tour length", Quantity("{} minutes", 10, 180)),
            Attribute("opening year", _year()),
            Attribute("home city", _CITIES),
        ),
        "bridge": (
            Attribute("span length", Quantity("{} metres", 20, 990)),
            Attribute("tower height", Quantity("{} metres", 10, 320)),
            Attribute("lane count", Quantity("{} lanes", 2, 16)),
            Attribute("daily traffic", Quantity("{} thousand cars", 2, 240)),
            Attribute("completion year", _year()),
            Attribute("paint colour", Choice(("red", "green", "blue", "white", "black", "yellow", "grey"))),
        ),
        "festival": (
            Attribute("stage count", Quantity("{} stages", 2, 40)),
            Attribute("crowd size", Quantity("{} thousand visitors", 10, 990)),
            Attribute("concert total", Quantity("{} concerts", 5, 320)),
            Attribute("parade length", Quantity("{} hours", 2, 48)),
            Attribute("founding year", _year()),
            Attribute("mascot animal", Choice(("otter", "heron", "badger", "fox", "swan", "hare", "bear"))),
        ),
    },
}

SYLLABLES: tuple[str, ...] = (
    "ba", "bel", "bor", "cal", "cen", "dal", "dor", "dra", "el", "fan", "fen", "gar", "gul", "hal", "hes",
    "il", "jor", "kal", "kem", "kri", "lan", "lor", "lun", "mar", "mek", "mir", "nal", "nor", "nu", "or",
    "pel", "pra", "qua", "ral", "ren", "rin", "sal", "sev", "sor", "tal", "ter", "tis", "ul", "van", "vel",
    "vis", "wen", "xan", "yor", "zor",
)  # fmt: skip
"""Fifty syllables; a name is two or three of them, which makes 127,500 names."""


def domain_keywords(domain: Domain) -> frozenset[str]:
    """Words of at least four letters that occur in this domain's questions and in no other domain's."""
    mine = _question_words(domain)
    others = frozenset[str]().union(*(_question_words(other) for other in DOMAINS if other != domain))
    return mine - others


def _question_words(domain: Domain) -> frozenset[str]:
    phrases = [*KINDS[domain], *(a.name for attributes in KINDS[domain].values() for a in attributes)]
    return frozenset(word for phrase in phrases for word in phrase.split() if len(word) >= 4)
