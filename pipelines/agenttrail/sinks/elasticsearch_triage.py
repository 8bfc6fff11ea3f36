"""What an analyst decides on an incident: written beside what the pipeline owns, and lost by neither.

The pipeline writes an incident anew whenever a run looks at it, and keeps ``triage``.  An analyst's command writes
``triage`` only, onto the version of the document that it has read: if that is no longer the newest, Elasticsearch
refuses, and what has changed is looked at before anything is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from elasticsearch import ConflictError, NotFoundError

from agenttrail.errors import InputError, SinkError, shortened
from agenttrail.sinks.elasticsearch_connection import persist, where
from agenttrail.triage import HISTORY, Change, entry_text, history, triage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elasticsearch import Elasticsearch

_ATTEMPTS = 100  # each of them lost to another writer; a run writes an incident once or twice
_SHOWN = 300  # characters of what somebody else put there without a history
# The text of an analyst reaches the script as parameters only, never as a part of its source.
_WRITE = """
ctx._source.keySet().removeIf(key -> key.startsWith('triage.'));
ctx._source.triage = params.triage
"""


class TriageConflictError(SinkError):
    """Another analyst wrote on the same incident in between; says what, and nothing of ours was written."""


@dataclass(frozen=True)
class Triaged:
    """How an incident stands after a change.

    Attributes:
        incident: its id.
        triage: all that analysts wrote on it.
        conflicts: how often another writer was first.
    """

    incident: str
    triage: dict[str, Any]
    conflicts: int


@dataclass(frozen=True)
class _Version:
    """One version of an incident: what it says of triage, and what Elasticsearch knows the version by."""

    triage: dict[str, Any]
    number: int
    term: int


def triage(
    client: Elasticsearch, incident: str, change: Change, *, prefix: str = "agenttrail", patience: float = 0.0
) -> Triaged:
    """Write a change onto an incident.

    Args:
        client: from :func:`connect`.
        incident: its id, or the start of it.
        change: what to write.
        prefix: what the names of all indices begin with.
        patience: seconds to keep trying when Elasticsearch is away.

    Raises:
        InputError: no single incident is called that.
        TriageConflictError: another analyst was faster; says what he or she wrote.
        SinkError: it cannot be written.
    """
    id_, index = _place(client, incident, prefix, patience)
    _check_mapping(client, index, patience)
    read = partial(_read, client, index, id_, patience)
    base = now = read()
    for conflicts in range(_ATTEMPTS):
        if change.entry() in history(now.triage):  # an answer was lost, and what it told of was done
            return Triaged(id_, now.triage, conflicts)
        if now.triage != base.triage:
            raise TriageConflictError(_told(id_, base.triage, now.triage))
        made = change.applied(now.triage)
        if persist(client, partial(_written, client, index, id_, now, made), patience):
            return Triaged(id_, made, conflicts)
        now = read()
    msg = f"incident {id_} in Elasticsearch at {where(client)} is written without a pause: try again later"
    raise SinkError(msg)


def _written(client: Elasticsearch, index: str, id_: str, onto: _Version, made: dict[str, Any]) -> bool:
    """Write ``triage`` onto one version of an incident; False where that is the newest no more."""
    try:
        client.update(
            index=index, id=id_, if_seq_no=onto.number, if_primary_term=onto.term, refresh=True,
            script={"lang": "painless", "source": _WRITE, "params": {"triage": made}},
        )  # fmt: skip
    except (ConflictError, NotFoundError):
        return False
    return True


def _read(client: Elasticsearch, index: str, id_: str, patience: float) -> _Version:
    """Return the newest version, whether or not a search would see it yet."""
    found = persist(client, partial(_get, client, index, id_), patience)
    if found is None:
        msg = f"incident {id_} is no longer there: nothing opens it any more, and nobody had worked on it"
        raise InputError(msg)
    return _Version(triage_of(found["_source"]), found["_seq_no"], found["_primary_term"])


def _get(client: Elasticsearch, index: str, id_: str) -> dict[str, Any] | None:
    try:
        return dict(client.get(index=index, id=id_, source_includes=["triage", "triage.*"]).body)
    except NotFoundError:
        return None


def _told(id_: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what another analyst wrote in between."""
    known = history(before)
    new = [entry for entry in history(now) if entry not in known]
    changed = {name: value for name, value in now.items() if name != HISTORY and before.get(name) != value}
    told = "; ".join(entry_text(entry) for entry in new) or shortened(str(changed or "took something away"), _SHOWN)
    return f"incident {id_} was changed by somebody else just now ({told}); nothing was written: look, and try again"


def _place(client: Elasticsearch, incident: str, prefix: str, patience: float) -> tuple[str, str]:
    """Return id and index of the incident that is meant, which may be a superseded one."""
    name = shortened(incident, 100)
    search = partial(
        client.search, index=f"{prefix}-incidents-*", query={"prefix": {"incident.id": incident}}, source=False, size=2,
        allow_partial_search_results=False, track_total_hits=True,
    )  # fmt: skip
    found = persist(client, search, patience)["hits"]
    if not found["hits"]:
        msg = f"no incident {name!r} in Elasticsearch at {where(client)}"
        raise InputError(msg)
    if len(found["hits"]) > 1:
        msg = f"{name!r} is the start of {found['total']['value']} incidents: write more of it"
        raise InputError(msg)
    return found["hits"][0]["_id"], found["hits"][0]["_index"]


def _check_mapping(client: Elasticsearch, index: str, patience: float) -> None:
    """Refuse to have Elasticsearch guess the types of a history.

    Raises:
        SinkError: the index does not know it.
    """
    name = f"triage.{HISTORY}.at"
    known = persist(client, partial(client.field_caps, index=index, fields=[name]), patience)["fields"]
    if "date" not in known.get(name, {}):
        msg = (
            f"Elasticsearch at {where(client)} was set up by an older agenttrail, which knew no history of triage: "
            "run 'agenttrail elasticsearch setup' once more, as an administrator"
        )
        raise SinkError(msg)
