"""A timeline as a story: like minutes are one line, everything is told once, and nothing moves a cursor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.report.reading import batch_of
from agenttrail.timeline_story import MOST_MOMENTS, Moment, peers_on, size, story, story_lines, story_of

if TYPE_CHECKING:
    from random import Random

Entry = dict[str, Any]
DAY = datetime(2026, 3, 2, tzinfo=UTC)


def _time(minute: float) -> str:
    return f"{DAY + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"


def _entry(kind: str, minute: float, **more: Any) -> Entry:
    return {"timeline.kind": kind, "@timestamp": _time(minute), **more}


def _gpus(minutes: range, use: float) -> list[Entry]:
    return [_entry("gpu", minute, **{"gpu.utilization": use}) for minute in minutes]


def _steps(steps: dict[int, int]) -> list[Entry]:
    return [_entry("step", minute, **{"training.step": step}) for minute, step in steps.items()]


def _egress(minutes: list[int], more: Entry | None = None) -> list[Entry]:
    told = {
        "peer.ip": "198.51.100.7",
        "peer.port": 443,
        "source.bytes": 900,
        "destination.bytes": 1_500,
        **(more or {}),
    }
    return [_entry("egress", minute, **told) for minute in minutes]


def _told(*entries: list[Entry]) -> list[str]:
    """Return a story without the line of its day, and without its indentation."""
    return [line[2:] for line in story_lines(story([one for some in entries for one in some]))[1:]]


# -- GPUs and steps


def test_minutes_alike_are_one_line() -> None:
    still = _steps(dict.fromkeys(range(60, 120), 7))
    assert _told(_gpus(range(65, 105), 97.2), still) == [
        "01:00-01:05  no step",
        "01:05-01:45  GPUs at 97 %, no step",
        "01:45-02:00  no step",
    ]
    assert _told(_gpus(range(65, 105), 97.2)) == ["01:05-01:45  GPUs at 97 %"]


def test_what_changes_begins_a_new_line() -> None:
    use = _gpus(range(60), 2.0) + _gpus(range(60, 90), 96.0) + _gpus(range(90, 120), 45.0)
    assert _told(use) == [
        "00:00-01:00  GPUs at 2 %",
        "01:00-01:30  GPUs at 96 %",
        "01:30-02:00  GPUs at 45 %",
    ]


def test_a_job_that_makes_a_step_every_few_minutes_gets_on_all_the_time() -> None:
    """And stands still once there is none for longer than the analytic allows."""
    steps = _steps({minute: 100 + minute // 5 for minute in range(0, 60, 5)} | {70: 111, 80: 111})
    assert _told(_gpus(range(90), 95.0), steps) == [
        "00:00-00:05  GPUs at 95 %, no step",
        "00:05-00:56  GPUs at 95 %, steps 101 to 111",
        "00:56-01:30  GPUs at 95 %, no step, progress not reported in 9 of 34 minutes",
    ]


def test_where_steps_are_not_reported_it_is_not_said_that_there_were_none() -> None:
    late = _steps(dict.fromkeys(range(60, 80), 7))
    (line,) = _told(_gpus(range(20), 95.0), late)[:1]
    assert line == "00:00-00:20  GPUs at 95 %, progress not reported"


def test_minutes_in_which_progress_was_silent_are_not_said_to_be_without_a_step() -> None:
    """Nor where a report from before the silence stands in the same minute."""
    steps = _steps({**{minute: minute for minute in range(10)}, **dict.fromkeys(range(10, 13), 9)})
    silence = {
        "timeline.kind": "gap", "@timestamp": _time(12), "event.end": _time(14),
        "event.reason": "training progress silent",
    }  # fmt: skip
    told = _told(_gpus(range(14), 90.0), steps, [silence])
    assert "00:10-00:14  GPUs at 90 %, no step, progress not reported in 2 of 4 minutes" in told
    assert "00:10-00:14  GPUs at 90 %, no step, progress not reported in 1 of 4 minutes" in _told(
        _gpus(range(14), 90.0), steps, [{**silence, "event.reason": "another"}]
    )


def test_a_blink_belongs_to_what_was_before() -> None:
    use = _gpus(range(20), 96.0) + _gpus(range(20, 22), 5.0) + _gpus(range(22, 40), 97.0)
    assert _told(use) == ["00:00-00:40  GPUs at 5-97 %"]


def test_telemetry_that_pauses_is_not_filled() -> None:
    assert _told(_gpus(range(0, 21, 5), 96.0), _gpus(range(40, 50), 96.0)) == [
        "00:00-00:21  GPUs at 96 %",
        "00:40-00:50  GPUs at 96 %",
    ]


# -- egress


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([None, None, None], ""),
        (["success"] * 3, ", allowed"),
        (["failure"] * 3, ", blocked"),
        (["failure", "success", "success"], ", blocked in 1 of 3 minutes"),
    ],
)
def test_egress_to_a_peer_is_told_with_its_verdict(outcomes: list[str | None], verdict: str) -> None:
    entries = _egress([65, 66, 67])
    for entry, outcome in zip(entries, outcomes, strict=True):
        entry.update({"event.outcome": outcome} if outcome else {})
    (moment,) = story(entries)
    assert moment.text == f"to 198.51.100.7 port 443: 2.7 kB up, 4.5 kB down{verdict}"
    assert story_lines([moment])[1].startswith("  01:05-01:08  to 198.51.100.7")


def test_peers_and_lists_are_told_apart_and_ports_are_not() -> None:
    ports = [one | {"peer.port": 9_000 + number} for number, one in enumerate(_egress([1, 2, 3, 4, 5]))]
    other = _egress([2], {"peer.ip": "2001:db8::1", "peer.port": None})
    listed = [
        _entry("egress", minute, **{"peer.list": name, "source.bytes": 10**9, "destination.bytes": 3})
        for minute in (0, 15, 31)
        for name in ("allowed", "internal")
    ]
    assert _told(ports, other, listed) == [
        "00:00-00:16  to allow-listed peers: 2.0 GB up, 6 B down",
        "00:00-00:16  to internal peers: 2.0 GB up, 6 B down",
        "00:01-00:06  to 198.51.100.7 port 9000, 9001, 9002 and 2 more: 4.5 kB up, 7.5",
        "             kB down",
        "00:02        to 2001:db8::1: 900 B up, 1.5 kB down",
        "00:31        to allow-listed peers: 1.0 GB up, 3 B down",
        "00:31        to internal peers: 1.0 GB up, 3 B down",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (99_949, "99.9 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"),
     (10**15, "1,000.0 TB"), (2**63, "9,223,372.0 TB")],
)  # fmt: skip
def test_bytes_have_a_unit(count: int, text: str) -> None:
    (line,) = _told(_egress([0], {"source.bytes": count}))
    assert f": {text} up, " in line


@given(st.lists(st.integers(0, 200), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_every_minute_is_in_one_run_and_runs_are_apart(minutes: list[int], random: Random) -> None:
    """Whatever the order of entries."""
    entries = _egress(minutes)
    moments = story(entries)
    random.shuffle(entries)
    assert story(entries) == moments
    runs: list[list[int]] = []
    for minute in sorted(set(minutes)):
        if runs and minute <= runs[-1][-1] + 5:
            runs[-1].append(minute)
        else:
            runs.append([minute])
    zero = int(DAY.timestamp())
    assert [(one.start // 10**6 - zero, one.end // 10**6 - zero) for one in moments] == [
        (run[0] * 60, run[-1] * 60 + 60) for run in runs
    ]


# -- what happens at one time


def _morning() -> list[Entry]:
    call = {"gen_ai.tool.name": "shell", "gen_ai.tool.call.id": "call-2"}
    finding = {"finding.title": "SSH to nobody knows whom", "finding.severity": "high", "peer.ip": "198.51.100.7"}
    until = {"event.end": _time(100)}
    return [
        _entry("finding", 65.5, **finding, **call, **until, **{"gen_ai.tool.call.gap": 39.0}),
        _entry("finding", 64.85, **finding, **call, **{"gen_ai.tool.call.gap": 0.0}),
        _entry("lease_end", 120), _entry("lease_start", 60.25),
        _entry("tool_call", 64.85, **call, **{"gen_ai.tool.call.arguments": '{"command": "./run.sh"}'}, **until),
        _entry("gap", 110, **{"event.reason": "training progress silent", "event.end": _time(120)}),
        *_egress([65, 66], {"event.outcome": "success"}), *_egress([60], {"peer.ip": "198.51.100.8"}),
    ]  # fmt: skip


def test_a_story_is_told_in_the_order_of_time() -> None:
    """A call before the bytes of its minute, and what lasts with when it was over."""
    assert _told(_morning()) == [
        "01:00:15     lease starts",
        "01:00        to 198.51.100.8 port 443: 900 B up, 1.5 kB down",
        '01:04:51     tool call shell call-2 {"command": "./run.sh"}',
        "01:04:51     HIGH SSH to nobody knows whom towards 198.51.100.7, at tool call",
        "             shell call-2",
        "01:05:30     HIGH SSH to nobody knows whom towards 198.51.100.7, 39.0 s after",
        "             tool call shell call-2, until 01:40:00",
        "01:05-01:07  to 198.51.100.7 port 443: 1.8 kB up, 3.0 kB down, allowed",
        "01:50:00     not seen: training progress silent, until 02:00:00",
        "02:00:00     lease ends",
    ]
    last = _told([_entry("lease_end", 120.25)], _egress([120]))
    assert [line.split()[0] for line in last] == ["02:00", "02:00:15"]


def test_every_day_has_a_line_of_its_own() -> None:
    entries = [*_egress([1_438, 1_439, 1_440, 1_441]), _entry("lease_end", 2 * 1_440 + 5)]
    lines = story_lines(story(entries))
    assert lines == [
        "  2026-03-02",
        "  23:58-00:02  to 198.51.100.7 port 443: 3.6 kB up, 6.0 kB down",
        "  2026-03-04",
        "  00:05:00     lease ends",
    ]
    lasting = _gpus(range(2 * 1_440), 97.0)
    assert _told(lasting) == ["00:00-00:00  GPUs at 97 %, until 2026-03-04 00:00"]


def test_a_kind_of_a_later_version_is_told_by_its_name() -> None:
    assert _told([_entry("eclipse\x1b[2J", 1)]) == ["00:01:00     eclipse\\x1b[2J"]


# -- as lines


def test_a_long_story_loses_its_middle_and_what_opened_the_incident_stays() -> None:
    """The numbers of those left out add up; all are there where all are asked for."""
    calls = [_entry("tool_call", minute, **{"gen_ai.tool.call.id": f"call-{minute}"}) for minute in range(1_000)]
    high = _entry("finding", 500.5, **{"finding.severity": "high", "finding.title": "Mining"})
    low = _entry("finding", 501.5, **{"finding.severity": "low", "finding.title": "Egress"})
    moments = story([*calls, high, low])
    lines = story_lines(moments)
    left = [int(line.split()[1].replace(",", "")) for line in lines if "left out" in line]
    told = [line for line in lines if "call-" in line or "Mining" in line]
    assert sum(left) + len(told) == len(moments) == 1_002
    assert len(told) == 2 * (MOST_MOMENTS // 3) + 1
    assert "…" in lines[1 + MOST_MOMENTS // 3]
    assert [line for line in lines if "Mining" in line or "Egress" in line] == ["  08:20:30     HIGH Mining"]
    assert "--all" in lines[1 + MOST_MOMENTS // 3]
    everything = story_lines(moments, most=None)
    assert len(everything) == 1_003
    assert not any("left out" in line for line in everything)


def test_the_call_before_what_opened_the_incident_and_what_lasted_stay_too() -> None:
    calls = [_entry("tool_call", minute, **{"gen_ai.tool.call.id": f"call-{minute}"}) for minute in range(1_000)]
    call = {"gen_ai.tool.call.id": "call-500", "gen_ai.tool.call.gap": 30.0}
    high = _entry("finding", 500.5, **{"finding.severity": "high", "finding.title": "Mining"}, **call)
    entries = [*calls, high, *_gpus(range(501, 540), 97.0), *_egress([501, 502])]
    told = story_lines(story(entries))
    middle = told[2 + MOST_MOMENTS // 3 :][:6]
    assert [line[2:].split()[0] for line in middle] == [
        "08:20:00", "08:20:30", "…", "08:21-09:00", "08:21-08:23", "…",
    ]  # fmt: skip
    assert middle[2] == "  … 1 entry is left out here; --all shows it"


def test_many_findings_are_cut_too() -> None:
    findings = [_entry("finding", minute, **{"finding.severity": "high"}) for minute in range(1_000)]
    assert len(story_lines(story(findings))) <= MOST_MOMENTS + 3


def test_a_story_of_nothing_is_no_lines() -> None:
    assert story_lines(story([])) == []


_HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "a\u202egnp.exe\u2066", "two\nlines\r\ttab", "{0} %s ${HOME}", "\ud800",
    "x" * 1_000_000,
    " ".join("y" * 1_000_000), "\u0000", "界" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("value", _HOSTILE, ids=lambda value: ascii(value[:12]))
@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_from_logs_moves_the_cursor_or_fills_the_screen(value: str, width: int) -> None:
    names = (
        "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.arguments", "peer.ip", "peer.list",
        "event.outcome", "event.reason", "finding.title", "finding.severity", "rule.name",
    )  # fmt: skip
    entries = [
        _entry(kind, 1, **dict.fromkeys(names, value))
        for kind in ("lease_start", "lease_end", "tool_call", "gpu", "step", "egress", "gap", "finding", value)
    ]
    lines = story_lines(story(entries), width=width)
    assert all(line.isprintable() and len(line) <= width for line in lines)
    assert 9 <= len(lines) <= 70
    assert isinstance(story(entries)[0], Moment)


# -- in columns


_LATE = st.integers(0, 40)
_ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"timeline.kind": st.just("egress"), "@timestamp": _LATE.map(_time)},
        optional={
            "peer.ip": st.sampled_from(["198.51.100.7", "198.51.100.8"]),
            "peer.list": st.sampled_from(["internal", "allowed"]),
            "peer.port": st.sampled_from([22, 80, 443, 8443, 9000]), "source.bytes": st.integers(0, 2**40),
            "destination.bytes": st.integers(0, 2**40), "event.outcome": st.sampled_from(["success", "failure"]),
        },
    )
    | st.builds(
        lambda kind, minute, more: _entry(kind, minute, **more),
        st.sampled_from(["gpu", "step", "tool_call", "finding", "gap", "lease_start", "lease_end"]), _LATE,
        st.fixed_dictionaries({}, optional={
            "gpu.utilization": st.floats(0, 100), "training.step": st.integers(0, 9), "event.end": _LATE.map(_time),
            "gen_ai.tool.call.id": st.sampled_from(["a", "b"]), "finding.severity": st.sampled_from(["low", "high"]),
            "gen_ai.tool.call.gap": st.floats(0, 100), "event.reason": st.just("no counters"),
        }),
    ),
    max_size=60,
)  # fmt: skip


@given(_ENTRIES)
def test_a_story_is_the_same_from_columns_and_from_documents(entries: list[Entry]) -> None:
    assert story_of(batch_of(entries)) == story(entries)


@given(_ENTRIES)
def test_bytes_of_egress_are_told_once_and_verdicts_by_minute(entries: list[Entry]) -> None:
    """Row by row: runs of minutes of one peer, or of one list, that no pause cuts."""
    egress = [entry for entry in entries if entry["timeline.kind"] == "egress"]
    towards: dict[tuple[str, str], dict[str, list[Entry]]] = {}
    for entry in egress:
        whom = entry.get("peer.ip", ""), entry.get("peer.list", "")
        towards.setdefault(whom, {}).setdefault(entry["@timestamp"], []).append(entry)
    told = set()
    for (peer, listed), minutes in towards.items():
        runs: list[list[str]] = []
        for minute in sorted(minutes):
            apart = datetime.fromisoformat(minute) - datetime.fromisoformat(runs[-1][-1]) if runs else None
            if apart is None or apart > timedelta(minutes=5 if peer else 15):
                runs.append([])
            runs[-1].append(minute)
        for run in runs:
            some = [entry for minute in run for entry in minutes[minute]]
            seen = [{e["event.outcome"] for e in minutes[minute] if "event.outcome" in e} for minute in run]
            known = [outcomes for outcomes in seen if outcomes]
            blocked = sum("success" not in outcomes for outcomes in known)
            verdict = f", blocked in {blocked} of {len(known)} minutes" if known else ""
            if known and blocked in (0, len(known)):
                verdict = ", blocked" if blocked else ", allowed"
            ports = sorted({entry["peer.port"] for entry in some if "peer.port" in entry})
            more = f" and {len(ports) - 3} more" if len(ports) > 3 else ""
            port = f" port {', '.join(map(str, ports[:3]))}{more}" if ports else ""
            whom_ = f"{peer}{port}" if peer else peers_on(listed) if listed else "peers"
            sent, received = (sum(e.get(f"{side}.bytes", 0) for e in some) for side in ("source", "destination"))
            told.add((run[0], f"to {whom_}: {size(sent)} up, {size(received)} down{verdict}"))
    moments = [moment for moment in story(entries) if moment.kind == "egress"]
    assert {(f"{datetime.fromtimestamp(one.start / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}", one.text) for one in moments} == told
