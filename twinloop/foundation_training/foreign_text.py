"""Text outside the synthetic world, plain English and noise, so that the model ends on any input."""

from __future__ import annotations

from random import Random

_NOUNS = (
    "garden", "river", "teacher", "window", "market", "morning", "village", "engine", "letter", "company",
    "system", "report", "project", "customer", "service", "machine", "people", "weather", "road", "station",
    "paper", "house", "meeting", "result", "product", "country", "number", "school", "student", "problem",
    "agreement", "party", "information", "disease", "treatment", "symptom", "cost", "income", "balance",
    "history",
)  # fmt: skip
_ADJECTIVES = (
    "old", "new", "quiet", "large", "small", "early", "late", "common", "public", "private", "simple",
    "recent", "careful", "annual", "local", "foreign", "strong", "weak", "open", "general",
)  # fmt: skip
_VERBS = (
    "follows", "changes", "needs", "shows", "keeps", "brings", "leaves", "includes", "requires", "supports",
    "explains", "reduces", "increases", "affects", "provides", "describes", "causes", "helps", "meets",
    "covers",
)  # fmt: skip
_TAILS = (
    "every year", "after the meeting", "in most cases", "because of the rain", "without any delay",
    "as described above", "under the new rules", "before the end of March", "for more than ten people",
    "at the same time", "if nothing else is agreed", "according to the report", "when it is possible",
)  # fmt: skip
_OPENINGS = ("However, ", "In addition, ", "For example, ", "Usually ", "Today ", "", "", "", "", "")
_QUESTION_FORMS = (
    "How does the {noun} change the {other}?",
    "Why is the {adjective} {noun} important?",
    "Who {verb} the {noun} {tail}?",
    "When did the {noun} become {adjective}?",
    "Is it true that the {noun} {verb} the {other}?",
    "What are the {adjective} parts of a {noun}?",
    "Can you write a poem about the {adjective} {noun}?",
    "Please describe how a {noun} {verb} the {other}.",
    "Where can I find a {noun} {tail}?",
    "Explain the {noun}",
    "hello",
    "Thank you!",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SYMBOLS = (
    *"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    *"äöüßéèçñåøœ€£¥°§“”‘’–—…•×÷αβγдежя中文日本語한국عربي😀",
    "\n",
    "\t",
)  # fmt: skip


def sentence(random: Random) -> str:
    """One grammatical sentence about nothing in particular."""
    noun, other = random.sample(_NOUNS, 2)
    subject = f"{random.choice(_OPENINGS)}the {random.choice(_ADJECTIVES)} {noun}"
    text = f"{subject} {random.choice(_VERBS)} the {other}"
    if random.random() < 0.5:
        text += f" {random.choice(_TAILS)}"
    return f"{text[0].upper()}{text[1:]}."


def paragraph(random: Random, max_sentences: int) -> str:
    return " ".join(sentence(random) for _ in range(random.randint(1, max_sentences)))


def question(random: Random) -> str:
    """A question no document of the synthetic world answers."""
    noun, other = random.sample(_NOUNS, 2)
    return random.choice(_QUESTION_FORMS).format(
        noun=noun,
        other=other,
        adjective=random.choice(_ADJECTIVES),
        verb=random.choice(_VERBS),
        tail=random.choice(_TAILS),
    )


def noise(random: Random, max_words: int) -> str:
    """Random words, symbols and scripts; covers every printable ASCII character over many draws."""
    words = []
    for _ in range(random.randint(1, max_words)):
        alphabet = _SYMBOLS if random.random() < 0.3 else _LETTERS
        words.append("".join(random.choice(alphabet) for _ in range(random.randint(1, 9))))
    return " ".join(words)
