"""From findings to incidents: whatever their order and batches, what one would put together by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.pipeline import rows_of
from tests.oracles import incidents as oracle
from tests.oracles.findings import KEY

from agenttrail.columns.addresses import address
from agenttrail.columns.ids import content_id
from agenttrail.incidents import group
from agenttrail.incidents.wording import headline
from agenttrail.schema import record

if TYPE_CHECKING:
    from random import Random

DAY = datetime(2026, 3, 2, tzinfo=UTC)
KINDS = {"aws_vpc_flow": "flow log", "alibaba_vpc_flow": "flow log", "alibaba_cloud_firewall": "firewall"}
_FINDING = record("finding").arrow()

_TIMES = st.integers(0, 200_000).map(lambda second: DAY + timedelta(seconds=second))
_HOST = {"entity.type": "host", "entity.id": "n1", "entity.anchor": "2026-03-02", "host.name": "n1"}
_SANDBOX = {
    "entity.type": "sandbox", "entity.id": "pod-1", "entity.anchor": "uid-1", "sandbox.id": "pod-1",
    "k8s.pod.uid": "uid-1", "host.name": "n1", "job.id": "j1",
}  # fmt: skip
_ENTITY = st.sampled_from(
    [
        _HOST,
        _SANDBOX,
        _SANDBOX | {"job.id": "j2"},
        _SANDBOX | {"entity.anchor": "uid-2", "k8s.pod.uid": "uid-2", "gen_ai.agent.id": "a1"},
        {"entity.type": "address", "entity.id": "vpc-a/10.0.0.9", "entity.anchor": "2026-03-02"},
    ]
)
_RULES = {
    f"{level}-{number}": {
        "rule.id": f"{place}{number}", "rule.name": f"{level}/{number}", "finding.title": f"Title {number}",
        "finding.severity": level, "threat.technique.id": [f"T{place}", "T1"][: number + 1],
        "threat.tactic.name": [level] if number else [], "recommendation": [f"Do {place}."],
    }
    for place, level in enumerate(oracle.LEVELS)
    for number in range(3)
}  # fmt: skip
_SMALL_LISTS = {
    "attribution.scope": ["vpc-a", "vpc-b"], "attribution.lease_id": ["l1", "l2"],
    "attribution.candidates": ["l1", "l3"], "attribution.reason": ["a lease covers the start", "no lease"],
}  # fmt: skip


@st.composite
def _call(draw: st.DrawFn, first: datetime) -> dict[str, Any]:
    """Return the tool call before a finding, where there is one; it need not have a name or an id."""
    if draw(st.booleans()):
        return {}
    gap = draw(st.sampled_from([0.0, 4.0, 86_400.25]))
    return {
        "gen_ai.tool.name": draw(st.sampled_from([None, "shell", "python"])),
        "gen_ai.tool.call.id": draw(st.sampled_from([None, "call-1", "call-2"])),
        "gen_ai.tool.call.start": first - timedelta(seconds=gap), "gen_ai.tool.call.gap": gap,
    }  # fmt: skip


@st.composite
def _finding(draw: st.DrawFn) -> dict[str, Any]:
    first, last = sorted((draw(_TIMES), draw(_TIMES)))
    peer = draw(st.sampled_from([None, "198.51.100.7", "203.0.113.9", "2001:db8::1"]))
    row = {
        **draw(_ENTITY),
        **_RULES[draw(st.sampled_from(sorted(_RULES)))],
        "peer.ip": peer,
        "destination.ip": [] if peer else draw(st.lists(st.sampled_from(["198.51.100.8", "203.0.113.9"]), unique=True)),
        "peer.port": draw(st.lists(st.sampled_from([22, 443, 3333]), unique=True)),
        "finding.first_seen": first, "finding.last_seen": last, "@timestamp": first,
        "event.dataset": sorted(draw(st.sets(st.sampled_from([*KINDS, "unheard_of"]), min_size=1, max_size=2))),
        "event.count": draw(st.integers(1, 10**12)),
        "attribution.status": draw(st.sampled_from(["attributed", "attributed", "ambiguous", "unattributed"])),
        "attribution.level": "sandbox",
        "attribution.lease_start": draw(st.none() | st.just(DAY)),
        "trajectory.id": draw(st.sampled_from([None, "t1", "t1", "t2"])),
        **draw(_call(first)),
        **{name: sorted(draw(st.sets(st.sampled_from(some)))) for name, some in _SMALL_LISTS.items()},
    }  # fmt: skip
    return _named(row)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Give a finding its ids."""
    key = [row.get(name) for name in KEY]
    ids = {"finding.id": content_id(row["rule.id"], *key, row["peer.ip"]), "incident.id": content_id("incident", *key)}
    empty: dict[str, Any] = {field.name: [] if pa.types.is_list(field.type) else None for field in _FINDING}
    return {**empty, **row, **ids}


_FINDINGS = st.lists(_finding(), max_size=25, unique_by=lambda row: str(row["finding.id"]))


def _batch(findings: list[dict[str, Any]]) -> pa.RecordBatch:
    rows = [
        {
            **row,
            "peer.ip": row["peer.ip"] and address(row["peer.ip"]),
            "destination.ip": [address(one) for one in row["destination.ip"]],
        }
        for row in findings
    ]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in _FINDING]
    return pa.RecordBatch.from_arrays(columns, schema=_FINDING)


def _grouped(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows_of(group(_batch(findings), KINDS))


@given(_FINDINGS)
def test_incidents_are_those_that_the_oracle_makes(findings: list[dict[str, Any]]) -> None:
    expected = oracle.incidents(findings, KINDS)
    made = {incident["incident.id"]: incident for incident in _grouped(findings)}
    assert made.keys() == expected.keys()
    for id_, incident in expected.items():
        terms = incident.pop("terms")
        assert {name: made[id_][name] for name in incident} == incident
        assert [int(factor.split()[0]) for factor in made[id_]["incident.risk_factors"]] == terms


@given(_FINDINGS, st.randoms(use_true_random=False))
def test_the_order_of_findings_changes_nothing(findings: list[dict[str, Any]], random: Random) -> None:
    shuffled = list(findings)
    random.shuffle(shuffled)
    assert group(_batch(shuffled), KINDS).equals(group(_batch(findings), KINDS))


@given(_FINDINGS, st.integers(0, 15))
def test_entities_can_be_grouped_apart(findings: list[dict[str, Any]], cut: int) -> None:
    """So that any sharding by entity gives the same incidents."""
    whole = _grouped(findings)
    parts = [[one for one in findings if (one["incident.id"] < f"{cut:x}") is side] for side in (True, False)]
    apart = [incident for part in parts for incident in _grouped(part)]
    assert apart == whole
    assert [incident["incident.id"] for incident in whole] == sorted({incident["incident.id"] for incident in whole})


def _one(**more: Any) -> dict[str, Any]:
    """Return a finding of high severity by one sensor."""
    row = {
        **_SANDBOX, **_RULES["high-0"], "peer.ip": "198.51.100.7", "peer.port": [22], "finding.first_seen": DAY,
        "finding.last_seen": DAY, "@timestamp": DAY, "event.dataset": ["aws_vpc_flow"], "event.count": 1,
        "attribution.status": "attributed", "attribution.level": "sandbox",
    }  # fmt: skip
    return _named(row | more)


def test_no_findings_make_no_incidents() -> None:
    assert _grouped([]) == []


def test_context_never_adds_up_to_an_incident() -> None:
    context = [_one(**_RULES[f"{level}-{number}"]) for level in ("low", "informational") for number in range(3)]
    assert _grouped(context) == []


def test_context_joins_what_something_else_opened() -> None:
    quiet = _one(**_RULES["low-0"], **{"peer.ip": "203.0.113.9", "finding.last_seen": DAY + timedelta(hours=9)})
    (incident,) = _grouped([_one(), quiet])
    assert incident["finding.id"] == sorted([quiet["finding.id"], _one()["finding.id"]])
    assert (incident["event.count"], incident["finding.count"]) == (2, 2)
    assert incident["rule.name"] == ["high/0", "low/0"]
    assert incident["destination.ip"] == ["198.51.100.7"]
    assert incident["incident.last_seen"] == DAY
    assert incident["threat.technique.id"] == _one()["threat.technique.id"]


@pytest.mark.parametrize(
    ("level", "datasets", "severity"),
    [
        ("medium", ["aws_vpc_flow"], "medium"),
        ("medium", ["aws_vpc_flow", "alibaba_vpc_flow"], "medium"),
        ("medium", ["aws_vpc_flow", "alibaba_cloud_firewall"], "high"),
        ("high", ["alibaba_cloud_firewall"], "high"),
        ("high", ["alibaba_cloud_firewall", "alibaba_vpc_flow"], "critical"),
        ("critical", ["alibaba_cloud_firewall", "alibaba_vpc_flow"], "critical"),
    ],
)
def test_two_kinds_of_evidence_that_agree_raise_severity_by_one_step(
    level: str, datasets: list[str], severity: str
) -> None:
    """Two flow logs are one kind: they may be two ends of one sensor's view."""
    (incident,) = _grouped([_one(**_RULES[f"{level}-0"], **{"event.dataset": datasets})])
    assert incident["incident.severity"] == severity
    apart = [_one(**_RULES[f"{level}-{n}"], **{"event.dataset": [dataset]}) for n, dataset in enumerate(datasets)]
    (incident,) = _grouped(apart)
    assert incident["incident.severity"] == severity


def test_context_by_another_sensor_does_not_raise_severity() -> None:
    (incident,) = _grouped([_one(), _one(**_RULES["low-0"], **{"event.dataset": ["alibaba_cloud_firewall"]})])
    assert incident["incident.severity"] == "high"
    assert incident["event.dataset"] == ["alibaba_cloud_firewall", "aws_vpc_flow"]


def test_risk_is_the_sum_of_its_terms_in_words() -> None:
    findings = [
        _one(**_RULES[f"high-{number}"], **{"event.dataset": [dataset], "attribution.status": "ambiguous"})
        for number, dataset in enumerate(KINDS)
    ]
    (incident,) = _grouped(findings)
    assert incident["incident.risk_factors"] == [
        "+65 the worst finding is high",
        "+10 3 different rules of medium or above fired",
        "+10 independent sources agree: firewall, flow log",
        "-15 who it was is ambiguous",
    ]
    assert incident["incident.risk_score"] == 70


def test_two_rules_of_one_title_are_two_rules() -> None:
    (incident,) = _grouped([_one(), _one(**{"rule.id": "copy", "rule.name": "copies/of-it"})])
    assert "+5 2 different rules of medium or above fired" in incident["incident.risk_factors"]


def test_lists_stop_at_a_hundred_and_counts_do_not() -> None:
    findings = [_one(**{"peer.ip": f"198.51.100.{number}", "peer.port": [number + 1]}) for number in range(150)]
    low = [_one(**_RULES["low-0"], **{"peer.ip": f"203.0.113.{number}"}) for number in range(50)]
    (incident,) = _grouped([*low, *findings])
    assert (incident["finding.count"], incident["event.count"]) == (200, 200)
    listed = {name: incident[name] for name in ("finding.id", "destination.ip", "destination.port")}
    assert {name: len(values) for name, values in listed.items()} == dict.fromkeys(listed, 100)
    assert set(listed["finding.id"]) <= {finding["finding.id"] for finding in findings}


def test_a_peer_of_its_own_is_listed_however_many_a_burst_tried() -> None:
    tried = [f"10.9.{number // 250}.{number % 250}" for number in range(300)]
    tried.sort(key=address)
    burst = _one(**_RULES["high-1"], **{"peer.ip": None, "destination.ip": tried[:100]})
    (incident,) = _grouped([burst, _one(**{"peer.ip": "203.0.113.9"})])
    assert incident["destination.ip"] == [*tried[:99], "203.0.113.9"]


def test_one_incident_an_occupancy() -> None:
    """A pod's name used again, and the same pod as another job's, are other entities."""
    again = _one(**{"entity.anchor": "uid-9", "k8s.pod.uid": "uid-9"})
    assert len({incident["incident.id"] for incident in _grouped([_one(), again, _one(**{"job.id": "j9"})])}) == 3


# -- words


def test_the_summary_says_who_did_what_where_and_when() -> None:
    finding = _one(
        **{
            "gen_ai.agent.id": "a1",
            "trajectory.id": "t1",
            "finding.last_seen": DAY + timedelta(minutes=5),
            "event.count": 7_000,
        }
    )
    (incident,) = _grouped([finding])
    assert incident["incident.title"] == "Title 0 by sandbox pod-1"
    assert incident["incident.summary"] == (
        "Title 0: agent a1, trajectory t1, sandbox pod-1 on n1 towards 198.51.100.7 (port 22) "
        "from 2026-03-02 00:00:00 to 00:05:00 UTC; 7,000 events in all."
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            {"gen_ai.tool.name": "shell", "gen_ai.tool.call.id": "call-2"},
            ", the last tool call before it 4.0 s earlier: shell call-2; one event",
        ),
        ({"gen_ai.tool.name": "shell", "gen_ai.tool.call.gap": 0.0}, ", at tool call shell; one event"),
        ({"gen_ai.tool.call.gap": 1_234.56}, ", the last tool call before it 1,234.6 s earlier; one event"),
    ],
)
def test_the_summary_names_the_tool_call_and_not_what_it_said(call: dict[str, Any], said: str) -> None:
    gap = call.get("gen_ai.tool.call.gap", 4.0)
    finding = _one(**{"gen_ai.tool.call.start": DAY - timedelta(seconds=gap), "gen_ai.tool.call.gap": gap, **call})
    (incident,) = _grouped([finding])
    assert f"at 2026-03-02 00:00:00 UTC{said}" in incident["incident.summary"]


def test_the_call_is_that_of_the_earliest_finding_that_opens_and_has_one() -> None:
    """Context names no call, and a finding without one leaves the word to the next."""

    def called(minute: int, number: int, **more: Any) -> dict[str, Any]:
        at = DAY + timedelta(minutes=minute)
        call = {"gen_ai.tool.call.id": f"call-{number}", "gen_ai.tool.call.start": at, "gen_ai.tool.call.gap": 0.0}
        return _one(
            **{"peer.ip": f"198.51.100.{number}", "finding.first_seen": at, "finding.last_seen": at}, **call, **more
        )

    (incident,) = _grouped([_one(), called(1, 1, **_RULES["low-0"]), called(3, 3), called(2, 2)])
    assert incident["gen_ai.tool.call.id"] == "call-2"
    assert ", part of it at tool call call-2; " in incident["incident.summary"]


def test_the_summary_of_more_than_a_day_names_both_days() -> None:
    (incident,) = _grouped([_one(**{"finding.last_seen": DAY + timedelta(days=2, hours=1)})])
    assert "from 2026-03-02 00:00:00 to 2026-03-04 01:00:00 UTC" in incident["incident.summary"]


def test_the_summary_says_when_nobody_is_sure() -> None:
    entity = {"entity.type": "address", "entity.id": "10.0.0.9", "attribution.status": "unattributed"}
    finding = _one(**entity, **dict.fromkeys(("sandbox.id", "k8s.pod.uid", "host.name", "job.id"), None))
    (incident,) = _grouped([finding])
    assert incident["incident.title"] == "Title 0 by address 10.0.0.9"
    assert incident["incident.summary"].startswith("Title 0: address 10.0.0.9 towards")
    assert incident["incident.summary"].endswith("Who it was is unattributed.")


def test_many_peers_and_rules_are_counted_not_listed() -> None:
    findings = [_one(**_RULES[f"high-{number % 3}"], **{"peer.ip": f"198.51.100.{number}"}) for number in range(9)]
    (incident,) = _grouped(findings)
    assert incident["incident.title"] == "Title 0, and 2 more findings by sandbox pod-1"
    assert "towards 198.51.100.0, 198.51.100.1, 198.51.100.2 and 6 more (port 22)" in incident["incident.summary"]


def test_the_title_is_the_act_that_a_call_tells_else_the_worst() -> None:
    spans = {"event.dataset": ["otlp_spans"]}
    worst, other = _one(**_RULES["critical-1"]), _one(**_RULES["high-0"], **{"peer.ip": "203.0.113.9"})
    titles = [
        group(_batch(some), {**KINDS, "otlp_spans": "agent spans"}).column("incident.title").to_pylist()
        for some in ([worst, other], [worst, {**other, **spans}], [{**worst, **spans}, {**other, **spans}])
    ]
    more = ", and 1 more finding by sandbox pod-1"
    assert titles == [[f"Title 1{more}"], [f"Title 0{more}"], [f"Title 1{more}"]]


@pytest.mark.parametrize("entity", ["pod-1", "pod by sandbox pod", "pod\x1b[2J" + "x" * 500, ""])
@pytest.mark.parametrize("title", ["Mining by script", "SSH"])
def test_the_headline_is_the_title_without_who_it_was(title: str, entity: str) -> None:
    (incident,) = _grouped([_one(**{"finding.title": title, "entity.id": entity, "sandbox.id": entity})])
    assert headline(incident) == title
    assert headline({**incident, "incident.title": f"{title} (+1) by sandbox old"}) == f"{title} (+1)"
    assert headline({**incident, "incident.title": "someone's own"}) == "someone's own"


@pytest.mark.parametrize(
    "name",
    ["pod\x1b[2Jgone", "a\u202egnp.exe", "two\nlines", "{finding.id} %s ${HOME} {{7*7}}", "<script>alert(1)</script>"],
)
def test_names_from_logs_stand_in_sentences_as_they_are_and_do_nothing(name: str) -> None:
    finding = _one(**{"entity.id": name, "sandbox.id": name, "gen_ai.agent.id": "x" * 5_000})
    (incident,) = _grouped([finding])
    for text in (incident["incident.title"], incident["incident.summary"]):
        assert text.isprintable()
        assert len(text) < 1_000
    shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
    assert f"sandbox {shown}" in incident["incident.summary"]
    assert incident["sandbox.id"] == name
