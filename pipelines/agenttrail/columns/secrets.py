"""Secrets in text, and the text without them: one list of patterns for everything that is written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

MASK = "[REDACTED]"
_NAMES = (
    r"api[_-]?key|access[_-]?key(?:[_-]?(?:id|secret))?|secret(?:[_-]?(?:access)?[_-]?key)?|client[_-]?secret|private[_-]?key|"
    r"encryption[_-]?key|openai[_-]?key|auth[_-]?token|access[_-]?token|refresh[_-]?token|id[_-]?token|session[_-]?token|"
    r"security[_-]?token|token|passwd|password|passwort|passphrase|sshpass|db[_-]?pass|pwd|credentials?|signature|sig|"
    r"x-amz-(?:signature|credential|security-token)|ossaccesskeyid|authorization|cookie"
)
_EDGE = r"(?:^|[^a-z0-9]|\\+[nrt])"  # in JSON a line break is two characters, of which the second is a letter
_BARE = r"[^\s\"'&,;}\]\\]|\\+[^\s\"'\\nrt]"
_MASKED = r"\[REDACTED\]"  # so that what is scrubbed again stays as it is
_VALUE = (
    # in quotes, also in quotes that are themselves part of quoted text (JSON in JSON), or bare
    r"(?:(\")(?:[^\"\\]|\\.)+|(')[^'\"]+|(\\+[\"'])(?:[^\"'\\]|\\+[^\"'\\])+"
    rf"|{_MASKED}(?:{_BARE})*|(?:{_BARE})+)"
)
_ATTRIBUTE = r"[\"]value[\"]\s*:\s*(?:[{\[\s]*[\"](?:arrayValue|values|stringValue)[\"]\s*:\s*)+[{\[\s]*"
_OF_PROVIDERS = (
    r"gh[pousr]_|github_pat_|glpat-|glrt-|hf_|xox[abeprs][.-]|xapp-|sk-(?:ant-|proj-)?|[sr]k_live_|npm_|pypi-|gsk_|r8_|nvapi-|"
    r"hvs\.|tskey-|dop_v1_|SG\.|ya29\.|api_org_|AIza"
)
_FORMS = (
    r"(?:AKIA|ASIA|LTAI|AROA|AKID)[A-Za-z0-9]{12,}",
    rf"(?:{_OF_PROVIDERS})[A-Za-z0-9_.-]{{16,}}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
)
"""What is recognised by its own form: keys of clouds, code hosts and model providers, JSON web tokens."""
_PATTERNS = (
    # user and password in a URL, or a password or token alone
    (r"(?i)([a-z][a-z0-9+.-]*://)(?:[^/\s:@\"'\\]*:[^/\s@\"'\\]+|[^/\s:@\"'\\]{16,})@", rf"\1{MASK}@"),
    # Authorization: Bearer …, Basic …
    (rf"(?i)({_EDGE})(bearer|basic|token|apikey)(\s+)[a-z0-9._~+/=:-]{{8,}}", rf"\1\2\3{MASK}"),
    # name=value, "name": "value", --name value; with words before the name, as in PGPASSWORD or dbPassword
    (
        rf"(?i)((?:{_EDGE})(?:[a-z0-9_.-]*[a-z0-9_])?(?:{_NAMES})s?[0-9]*(?:\\*[\"'])?\]?\s*(?:=>|==?|:|%3D)\s*){_VALUE}",
        rf"\1\2\3\4{MASK}",
    ),
    (rf"(?i)(--?(?:{_NAMES})\s+){_VALUE}", rf"\1\2\3\4{MASK}"),
    # what programs take by letters of their own
    (rf"(?i)(\bcurl\b[^|;&\n]*?\s(?:-u|-b|--user|--cookie)\s*){_VALUE}", rf"\1\2\3\4{MASK}"),
    (
        r"(?i)(\b(?:sshpass|docker\s+login|mysql\w*|mariadb|zip|redis-cli|ldap\w+)\b[^|;&\n]*?\s-[paw]\s*)" + _VALUE,
        rf"\1\2\3\4{MASK}",
    ),
    # an attribute of a span: {"key": "name", "value": {"stringValue": "value"}}
    (
        rf"(?i)([\"]key[\"]\s*:\s*[\"](?:[^\"]*[^a-z0-9\"])?(?:{_NAMES})[\"]\s*,\s*{_ATTRIBUTE}){_VALUE}",
        rf"\1\2\3\4{MASK}",
    ),
    *((rf"(\b|\\[nrt]){form}", rf"\1{MASK}") for form in _FORMS),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|$)", MASK),
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
