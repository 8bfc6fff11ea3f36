"""Secrets do not come through; what is none does."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from tests.columns.secret_corpus import HARMLESS, LINES, VALUE

from agenttrail.columns.secrets import scrub, scrub_text

_SECRETS = [
    ("https://user:hunter2secret@example.com/x", "hunter2secret"),
    ("GET /?api_key=abcd1234efgh&x=1", "abcd1234efgh"),
    ('{"password": "correct horse"}', "correct"),
    ('{"password": "correct horse"}', "horse"),
    ('{"password": "correct \\"horse"}', "horse"),
    ("export PGPASSWORD=x PASSWORD='correct horse'", "horse"),
    (json.dumps({"arguments": json.dumps({"api_key": "s3cr3tvalue", "x": 1})}), "s3cr3tvalue"),
    (json.dumps(json.dumps(json.dumps({"password": "correct horse"}))), "horse"),
    (json.dumps({"cmd": 'tool --token "s3cr3tvalue" -v'}), "s3cr3tvalue"),
    (json.dumps({"key": "db.password", "value": {"stringValue": "s3cr3tvalue"}}), "s3cr3tvalue"),
    (
        json.dumps(
            {"key": "http.request.header.cookie", "value": {"arrayValue": {"values": [{"stringValue": "s3cr3tvalue"}]}}}
        ),
        "s3cr3tvalue",
    ),
    ("Authorization: Bearer abc.def.ghijklmnop", "ghijklmnop"),
    ("curl -H 'X-Api-Key: 0123456789abcdef'", "0123456789abcdef"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("LTAI5tExampleExample12", "LTAI5tExampleExample12"),
    ("tool --token s3cr3tvalue --verbose", "s3cr3tvalue"),
    ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789"),
    ("hf_abcdefghijklmnopqrstuvwxyz012345", "hf_abcdefghij"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIi"),
    ("https://oss.example.com/o?OSSAccessKeyId=LTAIx&Signature=abc%2Bdef", "abc%2Bdef"),
    ("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXk -----END OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXk"),
]


@pytest.mark.parametrize(("text", "secret"), _SECRETS)
def test_a_secret_is_masked(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrub_text(text)
    assert "[REDACTED]" in scrub_text(text)


@pytest.mark.parametrize("text", [text for text, _ in _SECRETS])
def test_what_is_scrubbed_again_stays_as_it_is(text: str) -> None:
    assert scrub_text(scrub_text(text)) == scrub_text(text)


def test_nothing_hides_behind_a_mask_that_somebody_wrote() -> None:
    assert scrub_text("password=[REDACTED]s3cr3tvalue x") == "password=[REDACTED] x"


@pytest.mark.parametrize(
    "text",
    [
        "2 123456789010 eni-0a1b 10.0.0.1 10.0.0.2 443 55555 6 20 4249 1418530010 1418530070 ACCEPT OK",
        '{"srcaddr":"10.0.0.1","tcp-flags":"19","log-status":"OK"}',
        "https://example.com/tokens/list?page=2",
        '{"key":"gen_ai.tool.name","value":{"stringValue":"bash"}}',
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub_text(text) == text


def test_nulls_stay_and_bytes_are_scrubbed_as_well() -> None:
    assert scrub(pa.array([None, "password=x1y2"])).to_pylist() == [None, "password=[REDACTED]"]
    assert scrub(pa.array([b"\xff password=x1y2"])).to_pylist() == [b"\xff password=[REDACTED]"]


_VALUE_ = "Zq0abcxK7vJ2mN8pR4sT6wQQ"
_LINES = (
    "cat > .env <<E\nPASSWORD=%s\nE", "a: b\ntoken: %s", "x\tpassword=%s", "x\r\nAPI_KEY=%s", "x\nghp_%s", "x\nAKIA%s",
    "x\nhf_%s", "x\nsk-%s", "x\neyJ%s.eyJhh1234567.abc", "x\nBearer %s", "password: aaaa\ntoken: %s\n",
    "API_KEY=abc\npassword = %s", "Authorization: Bearer abcdefghijk\nCookie: %s", "--token abc\n--password %s",
    "PASSWORD='a'\ntoken: %s", "PGPASSWORD=%s psql", "SSHPASS=%s x", "curl -u u:%s h", "mysql -p%s",
    "docker login -p %s r", "sshpass -p %s ssh", "redis://:%s@h", "https://%s@host", '{"dbPassword": "%s"}',
    "DB_PASS=%s", "OPENAI_KEY=%s", "npm_%s", "sk_live_%s",
)  # fmt: skip


@pytest.mark.parametrize("line", _LINES)
def test_secrets_go_on_any_line_at_any_depth_of_json(line: str) -> None:
    """In JSON a line break is two characters; what is left is still JSON, and is scrubbed whole."""
    text = line % _VALUE_
    for wrapped in (text, json.dumps({"c": text}), json.dumps({"k": json.dumps({"c": text})})):
        cleaned = scrub_text(wrapped)
        assert _VALUE_ not in cleaned
        assert scrub_text(cleaned) == cleaned
    json.loads(scrub_text(json.dumps({"c": text})))


@pytest.mark.parametrize(
    "text",
    ["compass: north", "docker run -p 80:80 x", "git push origin", "tokens_per_second: 100", "zip -r a.zip b",
     '{"timestamp":1,"tokens_per_second":22684.1,"loss":2.8}', "mysql -h db -u root"],
)  # fmt: skip
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert scrub_text(text) == text


def test_what_agents_are_known_to_write_does_not_come_through() -> None:
    """By itself, behind a line break, and at any depth of JSON; what was JSON still is."""
    assert [line for line in LINES if VALUE not in line] == []
    texts = [text for line in LINES for text in (line, f"ls -la\n{line}")]
    once = [json.dumps({"c": text}) for text in texts]
    whole = pa.array([*texts, *once, *(json.dumps({"k": text}) for text in once)])
    cleaned = scrub(whole)
    assert [text for text, left in zip(whole.to_pylist(), cleaned.to_pylist(), strict=True) if VALUE in left] == []
    assert scrub(cleaned).equals(cleaned)
    for text in cleaned[len(texts) :].to_pylist():
        json.loads(text)


def test_what_agents_say_otherwise_stays() -> None:
    assert scrub(pa.array(HARMLESS)).to_pylist() == HARMLESS
