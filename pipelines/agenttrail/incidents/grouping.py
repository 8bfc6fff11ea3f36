"""group(): all findings on one entity in one occupancy as one incident.

An incident is a pure function of the set of findings: whoever rebuilds it from the same findings gets the same
document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import (
    agreed,
    distinct_lists,
    group_rows,
    latest_by,
    max_by,
    min_by,
    ordinals,
    rank_in_group,
    smallest_by,
    sum_by,
)
from agenttrail.columns.ids import content_ids
from agenttrail.columns.numbers import numbers
from agenttrail.incidents.scoring import LEVELS, MEDIUM, raised, risk
from agenttrail.incidents.wording import summaries
from agenttrail.schema import TIMESTAMP, conform, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MOST_LISTED = 100
_SPANS = "agent spans"
"""Kind of source whose events are tool calls."""
_KEY = ("entity.type", "entity.id", "job.id", "entity.anchor")
_NAMES = (
    "gen_ai.agent.id", "trajectory.id", "sandbox.id", "host.name", "k8s.namespace.name", "k8s.pod.uid",
)  # fmt: skip
_STATE = ("attribution.status", "attribution.level", "attribution.lease_start")
_LEASE_END = "attribution.lease_end"
_CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.start", "gen_ai.tool.call.gap")
_PROOF = ("attribution.scope", "attribution.lease_id", "attribution.candidates", "attribution.reason")


def group(findings: pa.RecordBatch, kinds: Mapping[str, str]) -> pa.RecordBatch:
    """Return the incidents that findings make.

    Args:
        findings: all findings on each of their entities, in the shape of the finding record.
        kinds: what vouches for each dataset ("flow log", "firewall", …); two kinds that agree raise the severity.

    Returns:
        A batch in the shape of the incident record, sorted by ``incident.id``.  Only findings of medium severity or
        above open an incident; the others join as context: they are listed and counted, but say nothing of who it was,
        of times, peers, techniques, or what to do.
    """
    level = _levels(findings)
    which, first = group_rows([findings.column(name) for name in _KEY])
    opened = max_by(which, len(first), level) >= MEDIUM
    rows = np.flatnonzero(opened[which])
    findings, level = findings.take(pa.array(rows)), level[rows]
    which, first = group_rows([findings.column(name) for name in _KEY])
    count = len(first)
    opening = np.flatnonzero(level >= MEDIUM)
    columns = {name: findings.column(name).take(pa.array(first)) for name in _KEY}
    columns |= _all_findings(findings, which, count, level)
    columns |= _opening_findings(findings.take(pa.array(opening)), which[opening], count)
    agreeing = _agreeing_kinds(findings.take(pa.array(opening)), which[opening], count, kinds)
    columns |= _verdict_columns(findings, which, level, agreeing, columns, kinds)
    columns["incident.id"] = content_ids(["incident", *(columns[name] for name in _KEY)])
    incidents = conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("incident"))
    return incidents.take(pc.sort_indices(incidents.column("incident.id")))


def _levels(findings: pa.RecordBatch) -> NDArray[np.int64]:
    return numbers(pc.index_in(findings.column("finding.severity"), value_set=pa.array(LEVELS)))


def _merged(lists: pa.ListArray, which: NDArray[np.int64], count: int) -> pa.Array:
    """Return per group the distinct values of all its lists, sorted, at most 100."""
    owner = which[lists.value_parent_indices().to_numpy()]
    return distinct_lists(owner, count, lists.flatten(), MOST_LISTED)


def _all_findings(
    findings: pa.RecordBatch, which: NDArray[np.int64], count: int, level: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """Return what all findings add to their incident; where there are more than 100, the worst are listed."""
    ids = findings.column("finding.id")
    shown = np.flatnonzero(
        rank_in_group(which, -level, np.asarray(ids.to_numpy(zero_copy_only=False), dtype="S32")) < MOST_LISTED
    )
    columns = {"finding.id": distinct_lists(which[shown], count, ids.take(pa.array(shown)))}
    columns["finding.count"] = pa.array(np.bincount(which, minlength=count))
    columns["event.count"] = pa.array(sum_by(which, count, numbers(findings.column("event.count"))))
    for name in ("rule.id", "rule.name"):
        columns[name] = distinct_lists(which, count, findings.column(name), MOST_LISTED)
    columns["event.dataset"] = _merged(findings.column("event.dataset"), which, count)
    return columns


def _opening_findings(findings: pa.RecordBatch, which: NDArray[np.int64], count: int) -> dict[str, pa.Array]:
    """Return what only the findings that open an incident say of it."""
    first, last = (numbers(findings.column(f"finding.{name}_seen").cast(pa.int64())) for name in ("first", "last"))
    ended = numbers(findings.column("event.end").cast(pa.int64()))
    columns = {
        "incident.first_seen": pa.array(min_by(which, count, first)).view(TIMESTAMP),
        "incident.last_seen": pa.array(max_by(which, count, last)).view(TIMESTAMP),
        # what earlier versions wrote does not tell
        "event.end": pa.array(max_by(which, count, np.maximum(last, ended))).view(TIMESTAMP),
        "destination.ip": _peers(findings, which, count),
        "destination.port": _merged(findings.column("peer.port"), which, count),
    }
    columns["@timestamp"] = columns["incident.first_seen"]
    # a host or an address may have had several holders on its day: what one of them is called, the others need not be
    columns |= {name: agreed(which, count, findings.column(name), null_agrees=False) for name in _NAMES}
    columns |= {name: smallest_by(which, count, findings.column(name)) for name in _STATE}
    columns[_LEASE_END] = latest_by(which, count, findings.column(_LEASE_END))
    for name in (*_PROOF, "threat.technique.id", "threat.tactic.name", "recommendation"):
        columns[name] = _merged(findings.column(name), which, count)
    return columns | _first_call(findings, which, count, first)


def _first_call(
    findings: pa.RecordBatch, which: NDArray[np.int64], count: int, seen: NDArray[np.int64]
) -> dict[str, pa.Array]:
    """Return the tool call before the earliest finding, by (first seen, id), that has one before it."""
    known = np.flatnonzero(np.asarray(findings.column("gen_ai.tool.call.start").is_valid()))
    order = known[np.lexsort((ordinals(findings.column("finding.id"))[known], seen[known], which[known]))]
    owners, place = np.unique(which[order], return_index=True)
    row = np.full(count, -1)
    row[owners] = order[place]
    index = pa.array(row, mask=row < 0)
    return {name: findings.column(name).take(index) for name in _CALL}


def _peers(findings: pa.RecordBatch, which: NDArray[np.int64], count: int) -> pa.Array:
    """Return the peers of findings on one peer, and of those on several as far as there is room.

    A burst that was refused by hundreds of addresses must not crowd out the one that was spoken with.
    """
    several = findings.column("destination.ip")
    owner = np.concatenate([which, which[several.value_parent_indices().to_numpy()]])
    peer = pa.concat_arrays([findings.column("peer.ip"), several.flatten()])
    of_several = np.arange(len(owner)) >= findings.num_rows
    known = np.flatnonzero(np.asarray(peer.is_valid()))
    owner, peer, of_several = owner[known], peer.take(pa.array(known)), of_several[known]
    _, first = group_rows([pa.array(owner), peer])  # of what is on one peer and on several, the former is first
    owner, peer = owner[first], peer.take(pa.array(first))
    shown = np.flatnonzero(rank_in_group(owner, of_several[first], ordinals(peer)) < MOST_LISTED)
    return distinct_lists(owner[shown], count, peer.take(pa.array(shown)))


def _agreeing_kinds(
    findings: pa.RecordBatch, which: NDArray[np.int64], count: int, kinds: Mapping[str, str]
) -> pa.Array:
    """Return per incident the kinds of source that its opening findings rest on, sorted."""
    datasets = findings.column("event.dataset")
    owner = which[datasets.value_parent_indices().to_numpy()]
    encoded = datasets.flatten().dictionary_encode()
    named = pa.array([kinds.get(name, name) for name in encoded.dictionary.to_pylist()], pa.string()).take(
        encoded.indices
    )
    return distinct_lists(owner, count, named)


def _verdict_columns(
    findings: pa.RecordBatch,
    which: NDArray[np.int64],
    level: NDArray[np.int64],
    agreeing: pa.Array,
    columns: Mapping[str, pa.Array],
    kinds: Mapping[str, str],
) -> dict[str, pa.Array]:
    """Return severity, risk and words.  Incidents are few: they are worded one by one."""
    count = len(agreeing)
    highest = max_by(which, count, level)
    opening = level >= MEDIUM
    rules_of = _lists_of(findings.column("rule.id"), which, opening, count)
    # lists are sorted: a digit in front puts the worst first, before all what a tool call itself tells
    later = np.where(_of_calls(findings.column("event.dataset"), kinds), 0, len(LEVELS))
    digit = pc.utf8_lpad(pa.array(later + len(LEVELS) - level).cast(pa.string()), 2, "0")
    ranked = pc.binary_join_element_wise(digit, findings.column("finding.title"), "")
    titles_of = [list(dict.fromkeys(text[2:] for text in texts)) for texts in _lists_of(ranked, which, opening, count)]
    severities, scores, factors = [], [], []
    statuses = columns["attribution.status"].to_pylist()
    for incident, sources in enumerate(agreeing.to_pylist()):
        severity = raised(int(highest[incident]), len(sources))
        score, terms = risk(LEVELS[int(highest[incident])], len(rules_of[incident]), sources, statuses[incident])
        severities.append(severity)
        scores.append(score)
        factors.append(terms)
    titles, texts = summaries(columns, titles_of)
    return {
        "incident.severity": pa.array(severities, pa.string()),
        "incident.risk_score": pa.array(scores, pa.float64()),
        "incident.risk_factors": pa.array(factors, pa.list_(pa.string())),
        "incident.title": pa.array(titles, pa.string()),
        "incident.summary": pa.array(texts, pa.string()),
    }


def _of_calls(datasets: pa.ListArray, kinds: Mapping[str, str]) -> NDArray[np.bool_]:
    """Tell which findings rest on what spans say of tool calls."""
    told = np.zeros(len(datasets), dtype=bool)
    spans = pa.array([name for name, kind in kinds.items() if kind == _SPANS], pa.string())
    told[datasets.value_parent_indices().to_numpy()[np.asarray(pc.is_in(datasets.flatten(), value_set=spans))]] = True
    return told


def _lists_of(column: pa.Array, which: NDArray[np.int64], chosen: NDArray[np.bool_], count: int) -> list[list[str]]:
    rows = np.flatnonzero(chosen)
    return list(distinct_lists(which[rows], count, column.take(pa.array(rows))).to_pylist())
