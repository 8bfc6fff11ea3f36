"""Secrets in text, and the text without them: one list of patterns for everything that is written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.secret_patterns import PATTERNS

_ANY = "|".join(f"(?:{pattern})" for pattern, _ in PATTERNS)


def scrub(text: pa.Array) -> pa.Array:
    """Return a string column with every secret that can be recognised replaced by ``[REDACTED]``."""
    suspicious = pc.fill_null(pc.match_substring_regex(text, _ANY), fill_value=False)
    if not pc.any(suspicious).as_py():
        return text
    cleaned = text.filter(suspicious)
    for pattern, replacement in PATTERNS:
        cleaned = pc.replace_substring_regex(cleaned, pattern, replacement)
    return pc.replace_with_mask(text, suspicious, cleaned)


def scrub_text(text: str) -> str:
    """Return one text without the secrets that can be recognised."""
    return str(scrub(pa.array([text]))[0].as_py())
