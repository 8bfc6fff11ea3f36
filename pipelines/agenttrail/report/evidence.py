"""The evidence of a finding, decoded: when, from where to where, what was decided, how much; then the original line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agenttrail.errors import shortened
from agenttrail.report.pages import between, short
from agenttrail.timeline_story import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]
_LINE = 1_200
"""Characters of one original line."""
_SAID = 300
"""Characters of the arguments of a call."""
_DECIDED = {"success": "allowed", "failure": "blocked"}


class Line(NamedTuple):
    """One event of the evidence; a tuple, as a sandboxed template takes one apart at no cost.

    Attributes:
        time: when it started, and until when where it lasted.
        way: from which address and port to which; "" where it has none.
        verdict: what the sensor decided; "" where it says nothing.
        carried: bytes and packets; "" where it tells of none.
        what: anything else that it says: the call, the sensor's rule, the metric.
        dataset: the log that it stands in.
        place: file and byte there.
        text: the original line.
    """

    time: str
    way: str
    verdict: str
    carried: str
    what: str
    dataset: str
    place: str
    text: str


class Budget:
    """Characters that may still be spent."""

    def __init__(self, left: int) -> None:
        """Take how many there are."""
        self.left = left

    def take(self, text: str) -> bool:
        """Spend a text; tell whether there was enough left."""
        self.left -= len(text)
        return self.left >= 0


def lines(finding: Mapping[str, Any], most: int, budget: Budget) -> list[Line]:
    """Return events of every log that shows a finding, by time; of each log those first that say what was decided.

    Args:
        finding: with its evidence.
        most: how many.
        budget: what their original lines may take.
    """
    evidence = finding.get("finding.evidence", [])
    place_in_log: dict[str, int] = {}
    order = []
    decided_first = sorted(enumerate(evidence), key=lambda pair: pair[1].get("event.outcome") is None)
    for number, event in decided_first:
        log = str(event.get("event.dataset", ""))
        place_in_log[log] = place_in_log.get(log, 0) + 1
        order.append((place_in_log[log], number))
    out: list[Line] = []
    sensors: dict[str, str] = {}
    for event in [evidence[number] for number in sorted(number for _, number in sorted(order)[:most])]:
        text = shortened(str(event.get("event.original", "")), _LINE)
        if not budget.take(text):
            break
        out.append(_line(event, text, again=_again(event, sensors)))
    return out


def _again(event: Document, sensors: dict[str, str]) -> bool:
    """Tell whether another sensor told of the same conversation above; take note of the first one that does."""
    conversation = event.get("network.community_id")
    sensor = f"{event.get('event.dataset', '')} {event.get('observer.name', '')}"
    return bool(conversation) and sensors.setdefault(str(conversation), sensor) != sensor


def own_addresses(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the addresses that the workload had in the evidence of some findings: the ends that are not the peer."""
    found: dict[str, None] = {}
    for finding in findings:
        for event in finding.get("finding.evidence", ()):
            side = {"egress": "source", "ingress": "destination"}.get(str(event.get("network.direction")))
            if side and event.get(f"{side}.ip"):
                found[str(event[f"{side}.ip"])] = None
    return list(found)


def _line(event: Document, text: str, *, again: bool) -> Line:
    place, offset = str(event.get("log.file.path", "")), event.get("log.offset")
    place += f" byte {offset:,}" if isinstance(offset, int) and place else ""
    ends = [_end(event, side) for side in ("source", "destination")]
    return Line(
        time=_time(event),
        way=" → ".join(end or "?" for end in ends) if any(ends) else "",
        verdict=_verdict(event) if any(ends) else "",
        carried=_carried(event),
        what=", ".join(filter(None, ["second sensor of the same connection" if again else "", _what(event)])),
        dataset=str(event.get("event.dataset", "")),
        place=place,
        text=text,
    )


def _time(event: Document) -> str:
    start = str(event["event.start"])
    return between(start, str(event.get("event.end") or start))


def _end(event: Document, side: str) -> str:
    address, port = event.get(f"{side}.ip"), event.get(f"{side}.port")
    if not address:
        return ""
    shown = short(address, 60)
    return shown if port is None else f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"


def _verdict(event: Document) -> str:
    decided = _DECIDED.get(str(event.get("event.outcome")), "")
    action = short(event["event.action"], 40) if event.get("event.action") else ""
    return f"{decided} ({action})" if decided and action else decided or action


def _carried(event: Document) -> str:
    told = []
    for side, word in (("source", "sent"), ("destination", "back")):
        amount, packets = event.get(f"{side}.bytes"), event.get(f"{side}.packets")
        if isinstance(amount, int):
            told.append(f"{size(amount)} {word}" + (f" in {packets:,} packets" if isinstance(packets, int) else ""))
    return ", ".join(told)


_ELSE = (
    ("gen_ai.tool.call.arguments", ""), ("destination.domain", "name "), ("network.application", "protocol "),
    ("rule.category", "sensor's category "), ("rule.name", "sensor's rule "), ("url.full", ""),
    ("connection.duration", "lasted s "), ("gpu.utilization", "GPU use % "), ("gpu.busy_duration", "busy s "),
)  # fmt: skip


def _what(event: Document) -> str:
    told = []
    if event.get("gen_ai.operation.name") == "execute_tool":
        names = [short(event[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if event.get(name)]
        told.append(" ".join(["tool call", *names]))
    if event.get("metric.name") is not None:
        told.append(f"{short(event['metric.name'])} = {short(event.get('metric.value', ''))}")
    told += [f"{label}{shortened(str(event[name]), _SAID)}" for name, label in _ELSE if event.get(name) is not None]
    return ", ".join(told)
