"""Findings and incidents to Elasticsearch: by id, so that whatever is sent again leaves the same documents.

What a caller needs is named here; reaching a server, bulk requests, indices and queries have files of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.sinks.elasticsearch_bulk import MOST_ACTIONS, MOST_BYTES, Actions, DeadDocument, Delivery, Written, cut
from agenttrail.sinks.elasticsearch_connection import PATIENCE, ElasticsearchSettings, connect
from agenttrail.sinks.elasticsearch_indices import index_names, is_set_up, setup
from agenttrail.sinks.elasticsearch_queries import (
    finding_of_lease,
    places,
    search_incidents,
    stored_findings,
    stored_timeline,
)
from agenttrail.sinks.elasticsearch_triage import TriageConflictError, Triaged, triage

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

__all__ = [
    "BulkWriter", "DeadDocument", "ElasticsearchSettings", "TriageConflictError", "Triaged", "Written", "connect",
    "finding_of_lease", "index_names", "is_set_up", "search_incidents", "setup", "stored_findings",
    "stored_timeline", "triage",
]  # fmt: skip

# A script works on one version of a document, and Elasticsearch stores what it makes only if that is still the
# newest; if not, the script runs again on the newest (retry_on_conflict).  So nothing that an analyst writes
# meanwhile is lost.  The parameters serve all these runs: a script must not change them.
_REPLACE = """
Map doc = new LinkedHashMap(params.doc);
for (entry in ctx._source.entrySet()) {
  String key = entry.getKey();
  if (key == 'triage' || key.startsWith('triage.')) { doc.put(key, entry.getValue()) }
}
if (doc.equals(ctx._source)) { ctx.op = 'none' } else { ctx._source = doc }
"""
_SUPERSEDE = """
boolean triaged = false;
for (entry in ctx._source.entrySet()) {
  String key = entry.getKey();
  def value = entry.getValue();
  boolean empty = value == null || (value instanceof Map && value.isEmpty());
  if ((key == 'triage' || key.startsWith('triage.')) && !empty) { triaged = true }
}
if (!triaged) { ctx.op = 'delete' }
else if (params.by.equals(ctx._source['incident.superseded_by'])) { ctx.op = 'none' }
else { ctx._source['incident.superseded_by'] = params.by }
"""
_CONFLICTS = 16
_ID, _INDEX = r"^[0-9a-f]{1,128}$", r"^[a-z0-9][a-z0-9._-]*$"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class BulkWriter:
    """Writes documents in bulk; rides out a server that is overloaded, stopped, killed and started again.

    A document that Elasticsearch refuses becomes a dead letter, while the others are written.
    """

    def __init__(
        self,
        client: Elasticsearch,
        *,
        prefix: str = "agenttrail",
        patience: float = PATIENCE,
        most_bytes: int = MOST_BYTES,
        most_actions: int = MOST_ACTIONS,
    ) -> None:
        """Prepare to write.

        Args:
            client: from :func:`connect`.
            prefix: what the names of all indices begin with.
            patience: seconds to keep trying when nothing can be written.
            most_bytes: of one request; a larger document goes alone.
            most_actions: of one request.
        """
        self._client, self._prefix, self._patience = client, prefix, patience
        self._most_bytes, self._most_actions = most_bytes, most_actions

    def index(self, ids: pa.Array, indices: pa.Array, documents: pa.Array) -> Written:
        """Write each document in place of what has its id.

        Args:
            ids: hexadecimal.
            indices: name of the index of each.
            documents: JSON objects, each on one line.

        Raises:
            SinkError: nothing can be written, for a reason that lies with the cluster.
            ValueError: an id or the name of an index cannot be one.
        """
        lines = _lines("index", ids, indices, "", "\n", documents)
        return self._deliver(
            Actions("index", ids, indices, documents, lines), pc.invert(pc.match_substring(documents, "\n"))
        )

    def replace(self, ids: pa.Array, indices: pa.Array, documents: pa.Array) -> Written:
        """Write each document in place of what has its id, but for ``triage`` and ``triage.*``, which stay as they are.

        Arguments and errors are those of :meth:`index`.  A document that would not change is left alone.
        """
        head = (
            '\n{"scripted_upsert":true,"upsert":{},"script":{"lang":"painless","source":'
            + _quoted(_REPLACE)
            + ',"params":{"doc":'
        )
        lines = _lines("update", ids, indices, _RETRY, head, documents, "}}}")
        fit = pa.array([_is_object(text) for text in documents.to_pylist()], pa.bool_())
        return self._deliver(Actions("replace", ids, indices, documents, lines), fit)

    def supersede_findings(self, ids: pa.Array) -> Written:
        """Delete findings in whose place others stand; ids that are not stored are passed over.

        Raises:
            SinkError: as :meth:`index`.
        """
        found, indices = places(self._client, "findings", ids, prefix=self._prefix, patience=self._patience)
        return self.delete(found, indices)

    def delete(self, ids: pa.Array, indices: pa.Array) -> Written:
        """Delete documents; those that are gone already are passed over.

        Raises:
            SinkError: as :meth:`index`.
        """
        return self._deliver(Actions("supersede", ids, indices, None, _lines("delete", ids, indices, "")))

    def supersede_incidents(self, ids: pa.Array, successors: pa.Array) -> Written:
        """Delete incidents in whose place others stand; triaged ones stay and name their successor.

        Args:
            ids: of the incidents; those that are not stored are passed over.
            successors: id of the incident in place of each.

        Raises:
            SinkError: as :meth:`index`.
        """
        found, indices = places(self._client, "incidents", ids, prefix=self._prefix, patience=self._patience)
        by = successors.take(pc.index_in(found, value_set=ids))
        _check(by, _ID)
        head = '\n{"script":{"lang":"painless","source":' + _quoted(_SUPERSEDE) + ',"params":{"by":"'
        return self._deliver(
            Actions("supersede", found, indices, None, _lines("update", found, indices, _RETRY, head, by, '"}}}'))
        )

    def _deliver(self, actions: Actions, fit: pa.Array | None = None) -> Written:
        """Send the rows that are ``fit``; the others are no JSON object on one line, and could pass for more."""
        rows = np.arange(len(actions.ids))
        unfit = rows[:0] if fit is None else np.flatnonzero(~np.asarray(fit.fill_null(fill_value=False), dtype=bool))
        rows = np.delete(rows, unfit)
        delivery = Delivery(self._client, actions, self._patience)
        delivery.written.dead += [actions.dead(row, "not a JSON object on one line") for row in unfit.tolist()]
        return delivery.send(cut(rows, actions.sizes()[rows], self._most_bytes, self._most_actions))


_RETRY = f',"retry_on_conflict":{_CONFLICTS}'


def _lines(verb: str, ids: pa.Array, indices: pa.Array, options: str, *rest: pa.Array | str) -> pa.Array:
    """Return what is sent for each row: the action, the rest, and a line end.

    Raises:
        ValueError: an id or the name of an index cannot be one.
    """
    _check(ids, _ID)
    _check(indices, _INDEX)
    parts = [f'{{"{verb}":{{"_index":"', indices, '","_id":"', ids, f'"{options}}}}}', *rest, "\n"]
    text = pa.large_string()  # a batch may hold more than 2 GiB
    cast = [pa.scalar(part, text) if isinstance(part, str) else part.cast(text) for part in parts]
    return pc.binary_join_element_wise(*cast, pa.scalar("", text)).cast(pa.large_binary())


def _check(names: pa.Array, pattern: str) -> None:
    fit = pc.fill_null(pc.match_substring_regex(names, pattern), fill_value=False)
    if not pc.all(fit, min_count=0).as_py():
        wrong = names.filter(pc.invert(fit))[0].as_py()
        msg = f"{wrong!r} is no id or name of an index: expected {pattern}"
        raise ValueError(msg)


def _is_object(text: str) -> bool:
    """Tell whether the text is one JSON object: what stands inside a script's parameters must not end them."""
    try:
        _OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return "\n" not in text


def _quoted(script: str) -> str:
    return orjson.dumps(script).decode()
