"""Secrets in text, and the text without them: one list of patterns for everything that is written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MASK = "[REDACTED]"
_NAMES = (
    r"api[_-]?key|apikey|access[_-]?key(?:[_-]?(?:id|secret))?|secret(?:[_-]?(?:access)?[_-]?key)?|client[_-]?secret|private[_-]?key|"
    r"auth[_-]?token|access[_-]?token|refresh[_-]?token|id[_-]?token|session[_-]?token|security[_-]?token|token|passwd|password|"
    r"passphrase|pwd|credentials?|signature|sig|x-amz-(?:signature|credential|security-token)|ossaccesskeyid|authorization|cookie"
)
_BARE = r"[^\s\"'&,;}\]\\]|\\+[^\s\"'\\]"
_MASKED = r"\[REDACTED\]"  # so that what is scrubbed again stays as it is
_VALUE = (
    # in quotes, also in quotes that are themselves part of quoted text (JSON in JSON), or bare
    r"(?:(\")(?:[^\"\\]|\\.)+|(')[^'\"]+|(\\+[\"'])(?:[^\"'\\]|\\+[^\"'\\])+"
    rf"|{_MASKED}(?:{_BARE})*|(?:{_BARE})+)"
)
_ATTRIBUTE = r"[\"]value[\"]\s*:\s*(?:[{\[\s]*[\"](?:arrayValue|values|stringValue)[\"]\s*:\s*)+[{\[\s]*"
_PATTERNS = (
    # user and password in a URL
    (r"(?i)([a-z][a-z0-9+.-]*://)[^/\s:@\"']+:[^/\s@\"']+@", rf"\1{MASK}@"),
    # Authorization: Bearer …, Basic …
    (r"(?i)\b(bearer|basic|token)(\s+)[a-z0-9._~+/=-]{8,}", rf"\1\2{MASK}"),
    # name=value, "name": "value", --name value
    (rf"(?i)((?:^|[^a-z0-9])(?:{_NAMES})(?:\\*[\"'])?\s*(?:=|:|%3D)\s*){_VALUE}", rf"\1\2\3\4{MASK}"),
    (rf"(?i)(--?(?:{_NAMES})\s+){_VALUE}", rf"\1\2\3\4{MASK}"),
    # an attribute of a span: {"key": "name", "value": {"stringValue": "value"}}
    (
        rf"(?i)([\"]key[\"]\s*:\s*[\"](?:[^\"]*[^a-z0-9\"])?(?:{_NAMES})[\"]\s*,\s*{_ATTRIBUTE}){_VALUE}",
        rf"\1\2\3\4{MASK}",
    ),
    # what is recognised by its own form: keys of clouds, code hosts and model providers, JSON web tokens
    (r"\b(?:AKIA|ASIA|LTAI|AROA)[A-Za-z0-9]{12,}", MASK),
    (r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-(?:ant-|proj-)?|AIza)[A-Za-z0-9_-]{16,}", MASK),
    (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", MASK),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)", MASK),
)
_ANY = "|".join(f"(?:{pattern})" for pattern, _ in _PATTERNS)


def scrub(text: pa.Array) -> pa.Array:
    """Return a string column with every secret that can be recognised replaced by ``[REDACTED]``."""
    suspicious = pc.fill_null(pc.match_substring_regex(text, _ANY), fill_value=False)
    if not pc.any(suspicious).as_py():
        return text
    cleaned = text.filter(suspicious)
    for pattern, replacement in _PATTERNS:
        cleaned = pc.replace_substring_regex(cleaned, pattern, replacement)
    return pc.replace_with_mask(text, suspicious, cleaned)


def scrub_text(text: str) -> str:
    """Return one text without the secrets that can be recognised."""
    return str(scrub(pa.array([text]))[0].as_py())
