"""Records that tell of something not recorded: what they say of themselves stands, and what they lack is said."""

from __future__ import annotations

import json

import pytest

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

_AWS = "2 1 eni-1 {ends} 6 20 4249 1772409600 1772409660 {action} {status}\n"


def _aws(ends: str, action: str, status: str) -> bytes:
    return _AWS.format(ends=ends, action=action, status=status).encode()


def _alibaba(ends: str, action: str, status: str) -> bytes:
    names = ("srcaddr", "dstaddr", "srcport", "dstport")
    record = dict(zip(names, ends.split(), strict=True)) | {"action": action, "log-status": status, "protocol": 6}
    return json.dumps(record | {"start": 1772409600, "end": 1772409660}).encode() + b"\n"


@pytest.mark.parametrize(("dataset", "line"), [("aws_vpc_flow", _aws), ("alibaba_vpc_flow", _alibaba)])
def test_a_status_speaks_only_where_the_record_has_no_action(dataset: str, line: object) -> None:
    made = b"".join(
        line(*case)  # type: ignore[operator]
        for case in (
            ("10.0.0.1 10.0.0.2 1 2", "REJECT", "SKIPDATA"),
            ("10.0.0.1 10.0.0.2 1 2", "ACCEPT", "OK"),
            ("- - - -", "-", "NODATA"),
        )
    )
    parsed = FORMATS[dataset].parser({})(Block(made, "x", 0))
    assert parsed.dead.num_rows == 0
    columns = [parsed.events.column(name).to_pylist() for name in ("event.action", "event.outcome", "event.reason")]
    assert list(zip(*columns, strict=True)) == [
        ("reject", "failure", "skipdata"),
        ("accept", "success", None),
        ("nodata", None, None),
    ]
