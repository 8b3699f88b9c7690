"""Whether an answer's citations hold: they exist in the answering release's index and support what is said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from schemas.outcomes import CitationVerdict

_WORD = re.compile(r"[a-z0-9]+")


def citation_verdict(
    text: str, *, cited: Sequence[str], cited_texts: Mapping[str, str], has_passages: bool
) -> CitationVerdict:
    """Judge an answer's citations.

    `cited_texts` holds the text of each cited document that exists in the index. `missing`: passages were given
    and nothing is cited. `not_required`: nothing was given and nothing is cited. `valid`: every cited document
    exists and one of them contains every word of the answer. `invalid`: anything else.
    """
    if not cited:
        return "missing" if has_passages else "not_required"
    if any(document_id not in cited_texts for document_id in cited):
        return "invalid"
    said = set(_WORD.findall(text.lower()))
    supported = said and any(said <= set(_WORD.findall(cited_texts[each].lower())) for each in cited)
    return "valid" if supported else "invalid"
