"""What the samples give agrees with what others made of them, value for value."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from tests.conformance.expected import BY_DESIGN, CORE
from tests.conformance.samples import DIFFERENCES, SAMPLES, Sample

from agenttrail.columns.addresses import parse_addresses
from agenttrail.columns.community import community_ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.runs import Ran

_WITH_EXPECTED = [sample for sample in SAMPLES if sample.expected]
_EVENTS_COMPARED = {"aws_vpc_flow": 8, "alibaba_cloud_firewall": 1}
_VALUES_COMPARED = {"aws_vpc_flow": 210, "alibaba_cloud_firewall": 26}


def _expected(sample: Sample, data: Path) -> list[dict[str, Any]]:
    assert sample.expected
    path, read = sample.expected
    return read((data / path).read_bytes())


def _records(sample: Sample, ran: Ran) -> list[dict[str, Any]]:
    """Return events and dead letters in the order of the lines."""
    return sorted(ran.events[sample.name] + ran.dead[sample.name], key=lambda row: row["log.offset"])


def _compared(sample: Sample, ran: Ran, data: Path) -> Iterator[tuple[int, str, Any, Any]]:
    """Yield record, field, expected value and ours."""
    pairs = zip(_expected(sample, data), _records(sample, ran), strict=True)
    for place, (theirs, ours) in enumerate(pairs):
        for field, value in theirs.items():
            yield place, field, value, _community_id(ours) if field == "network.community_id" else ours[field]


def _community_id(event: dict[str, Any]) -> str:
    """Return the id as detection computes it: only where rows are grouped, so that events do not carry it."""
    ends = [parse_addresses(pa.array([event[f"{side}.ip"]]))[0] for side in ("source", "destination")]
    ports = [pa.array([event[f"{side}.port"]]) for side in ("source", "destination")]
    (name,) = community_ids(ends[0], ports[0], ends[1], ports[1], pa.array([event["network.iana_number"]])).to_pylist()
    return str(name)


@pytest.mark.parametrize("sample", _WITH_EXPECTED, ids=lambda sample: sample.name)
def test_records_agree_but_for_the_known_differences(sample: Sample, ran: Ran, data: Path) -> None:
    differing = {
        (place, field): (theirs, ours) for place, field, theirs, ours in _compared(sample, ran, data) if theirs != ours
    }
    known = {(one.record, one.field): one for one in DIFFERENCES if one.sample == sample.name}
    assert {at: values for at, values in differing.items() if at not in known} == {}
    assert known.keys() - differing.keys() == set(), "no longer a difference"
    records = _records(sample, ran)
    for at, one in known.items():
        assert one.holds(records[one.record], *differing[at]), one.why


@pytest.mark.parametrize("sample", _WITH_EXPECTED, ids=lambda sample: sample.name)
def test_what_others_could_not_read_is_a_dead_letter(sample: Sample, ran: Ran, data: Path) -> None:
    unread = [not theirs for theirs in _expected(sample, data)]
    assert unread == ["error.message" in record for record in _records(sample, ran)]
    for letter in ran.dead[sample.name]:
        assert letter["error.message"]
        assert letter["event.original"].encode() == sample.content(data).rstrip(b"\n")


def test_enough_was_compared(ran: Ran, data: Path) -> None:
    events: Counter[str] = Counter()
    values: Counter[str] = Counter()
    fields: Counter[str] = Counter()
    for sample in _WITH_EXPECTED:
        compared = list(_compared(sample, ran, data))
        events[sample.format] += len({place for place, *_ in compared})
        values[sample.format] += len(compared)
        fields.update(field for _, field, theirs, _ in compared if theirs is not None)
    assert dict(events) == _EVENTS_COMPARED
    assert {name: count for name, count in values.items() if count < _VALUES_COMPARED[name]} == {}
    # of the source before translation nobody gave an expected value
    assert set(CORE) - set(fields) == {"source.nat.ip"}
    assert not set(BY_DESIGN) & set(fields)


def test_every_known_difference_is_of_a_sample() -> None:
    assert {one.sample for one in DIFFERENCES} <= {sample.name for sample in _WITH_EXPECTED}


def test_masked_addresses_are_told_by_name(ran: Ran) -> None:
    """An address with letters in it cannot be attributed; the record goes nowhere silently."""
    (masked,) = [one for one in SAMPLES if one.name.endswith("#one_line")]
    (letter,) = ran.dead[masked.name]
    assert letter["error.message"] == "src_ip is not an IP address"
