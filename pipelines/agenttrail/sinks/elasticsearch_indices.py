"""The indices: templates from the schemas, and which document stands where."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from elasticsearch import BadRequestError

from agenttrail.errors import SinkError
from agenttrail.resources import shipped
from agenttrail.schema import index_mappings, record
from agenttrail.sinks.elasticsearch_connection import persist, reason, where

if TYPE_CHECKING:
    import pyarrow as pa
    from elasticsearch import Elasticsearch

KINDS = {"incidents": "incident", "findings": "finding", "timeline": "timeline"}
"""What the indices are called, and the record that each holds."""
_PRIORITY = 300  # above the templates that come with Elasticsearch
_TRIAGE = {
    "type": "object",
    "dynamic": True,
    "properties": {
        "status": {"type": "keyword"},
        "assignee": {"type": "keyword"},
        "note": {"type": "text"},  # of analysts' tools; ours go to the history
        "history": {
            "type": "object",
            "properties": {
                "at": {"type": "date"},
                "by": {"type": "keyword"},
                "status": {"type": "keyword"},
                "assignee": {"type": "keyword"},
                "note": {"type": "text"},
            },
        },
    },
}
_SETTINGS = {
    "auto_expand_replicas": "0-1",  # a copy where there is a second node, and green where there is none
    "mapping.total_fields.ignore_dynamic_beyond_limit": True,  # of what an analyst puts below triage
}


def setup(client: Elasticsearch, *, prefix: str = "agenttrail", patience: float = 0.0) -> list[str]:
    """Prepare the indices, any number of times: component templates, index templates, and the fields that are new.

    What stands in the component template ``<prefix>@custom`` (shards, replicas, lifecycle) is kept and goes above ours.

    Args:
        client: from :func:`connect`.
        prefix: what the names of all indices begin with.
        patience: seconds to wait for a server that is away.

    Returns:
        The aliases that are ready: ``<prefix>-incidents``, ….

    Raises:
        SinkError: it is not permitted, or what stands there is in the way.
    """
    for kind in _kinds():
        for step in (_check_alias, _put_templates, _update_mappings):
            persist(client, partial(step, client, prefix, kind), patience)
    return [f"{prefix}-{kind}" for kind in _kinds()]


def is_set_up(client: Elasticsearch, *, prefix: str = "agenttrail", patience: float = 0.0) -> bool:
    """Tell whether :func:`setup` was run here; without it, Elasticsearch would guess the types of all fields.

    Raises:
        SinkError: it cannot be told.
    """
    exists = client.indices.exists_index_template
    names = [f"{prefix}-{kind}" for kind in _kinds()]
    return all(bool(persist(client, partial(exists, name=name), patience)) for name in names)


def _kinds() -> list[str]:
    return [kind for kind, name in KINDS.items() if (shipped("schemas") / f"{name}.yml").exists()]


def _check_alias(client: Elasticsearch, prefix: str, kind: str) -> None:
    alias = f"{prefix}-{kind}"
    if client.indices.exists(index=alias) and not client.indices.exists_alias(name=alias):
        msg = (
            f"Elasticsearch at {where(client)} has an index named {alias}, where agenttrail needs an alias of "
            "that name: it was probably made by writing before 'agenttrail elasticsearch setup'; "
            f"delete it, or reindex it as {alias}-2026.01"
        )
        raise SinkError(msg)


def mappings(kind: str) -> dict[str, Any]:
    """Return the mappings of a kind of index: strict, but for what the analyst owns."""
    made: dict[str, Any] = index_mappings(record(KINDS[kind]))
    if kind == "incidents":
        made["properties"] = {**made["properties"], "triage": _TRIAGE}
    # A note that looks like a date would make its field one, and refuse the next note.
    return {**made, "date_detection": False}


def _put_templates(client: Elasticsearch, prefix: str, kind: str) -> None:
    name, custom = f"{prefix}-{kind}", f"{prefix}@custom"
    about = {"managed_by": "agenttrail", "description": f"agenttrail's {kind}; write settings of your own to {custom}"}
    component = {"settings": _SETTINGS, "mappings": mappings(kind), "aliases": {name: {}}}
    client.cluster.put_component_template(name=name, template=component, meta=about)
    client.indices.put_index_template(
        name=name, index_patterns=[f"{name}-*"], composed_of=[name, custom],
        ignore_missing_component_templates=[custom], priority=_PRIORITY, meta=about,
    )  # fmt: skip


def _update_mappings(client: Elasticsearch, prefix: str, kind: str) -> None:
    """Give the fields that this version adds to the months that an earlier one began."""
    pattern = f"{prefix}-{kind}-*"
    if client.indices.get(index=pattern, allow_no_indices=True, filter_path="*.aliases").body:
        made = mappings(kind)
        try:
            client.indices.put_mapping(
                index=pattern, dynamic=made["dynamic"], date_detection=made["date_detection"],
                properties=made["properties"],
            )  # fmt: skip
        except BadRequestError as error:
            msg = (
                f"Elasticsearch at {where(client)} has indices {pattern} with fields of other types than agenttrail's "
                f"({reason(error.body)}): they were probably made by writing before 'agenttrail elasticsearch setup'; "
                "delete them, or reindex them under the same names, and run this again"
            )
            raise SinkError(msg) from error


def index_names(kind: str, records: pa.RecordBatch, *, prefix: str = "agenttrail") -> pa.Array:
    """Return the index that each record belongs to: one a month, by the anchor of its entity.

    The anchor is a day or a time for all but pods; a pod's month is that in which its occupancy began, and where that
    is not known, that of the record's own time.

    Args:
        kind: one of ``KINDS``.
        records: with ``entity.anchor``, ``attribution.lease_start`` and ``@timestamp``.
        prefix: what the names of all indices begin with.
    """
    anchor = records.column("entity.anchor")
    dated = pc.fill_null(pc.match_substring_regex(anchor, r"^\d{4}-\d{2}-\d{2}(T|$)"), fill_value=False)
    times = pc.coalesce(records.column("attribution.lease_start"), records.column("@timestamp"))
    month = pc.if_else(
        dated, pc.replace_substring(pc.utf8_slice_codeunits(anchor, 0, 7), "-", "."), pc.strftime(times, "%Y.%m")
    )
    return pc.binary_join_element_wise(f"{prefix}-{kind}-", month, "")


def refresh(client: Elasticsearch, kind: str, *, prefix: str, patience: float) -> None:
    """Make what was written to a kind of index visible to searches.

    Raises:
        SinkError: Elasticsearch cannot be reached, or does not permit it.
    """
    persist(client, partial(client.indices.refresh, index=f"{prefix}-{kind}-*"), patience)
