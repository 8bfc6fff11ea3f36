"""Bulk requests that lose and double nothing: cut by bytes, sent until each action is done or refused for good.

Every action must leave the same when it is done again: what became of a request whose answer is lost is not known.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from elastic_transport import ApiError, ConnectionTimeout, TransportError

from agenttrail.errors import SinkError
from agenttrail.sinks.elasticsearch_connection import Failure, Patience, passing, reason, where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elasticsearch import Elasticsearch
    from numpy.typing import NDArray

MOST_BYTES = 8 << 20
"""Bytes of one request: more is not faster, and a node with a small heap refuses it."""
MOST_ACTIONS = 5_000

_PARAMETERS = {
    "filter_path": "items.*.status,items.*.result,items.*.error",
    "timeout": "30s",  # for a shard that is being started; less than the client waits for the whole
}
_FAULTS = 5  # times that a request or document may fail while the server answers others, before it is to blame itself
_BAD_REQUEST, _GONE, _TOO_LARGE, _OVERLOADED, _FAULT = 400, 404, 413, 429, 500
_PASSING = frozenset({408, 409, _OVERLOADED, 502, 503, 504})
_FORBIDDEN = frozenset({401, 403})
# Refusals of one document that every other of its index would meet, too.
_OF_THE_CLUSTER = frozenset({
    "index_closed_exception", "index_not_found_exception", "invalid_index_name_exception", "validation_exception",
})  # fmt: skip
_BLOCKED = "cluster_block_exception"
_OPERATION = re.compile(r"operation_bytes=(\d+), max_\w+_bytes=(\d+)")


@dataclass(frozen=True)
class DeadDocument:
    """A document that Elasticsearch will not take.

    Attributes:
        action: index, replace or supersede.
        id: of the document.
        index: where it belongs.
        document: as it was to be written; "" where there is none.
        reason: why not.
    """

    action: str
    id: str
    index: str
    document: str
    reason: str


@dataclass
class Written:
    """What became of documents: each is counted once; and how many requests were sent again."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    retries: int = 0
    dead: list[DeadDocument] = field(default_factory=list)

    def count(self, result: str) -> None:
        """Count one action by what Elasticsearch calls its result."""
        name = result if result in {"created", "updated", "deleted"} else "unchanged"
        setattr(self, name, getattr(self, name) + 1)


@dataclass(frozen=True)
class Actions:
    """Bulk actions of one kind, a row each.

    Attributes:
        name: index, replace or supersede.
        ids: of the documents.
        indices: where they belong.
        documents: JSON text, or None.
        lines: what is sent for each, with the line ends.
    """

    name: str
    ids: pa.Array
    indices: pa.Array
    documents: pa.Array | None
    lines: pa.Array

    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of each row."""
        return np.asarray(pc.fill_null(pc.binary_length(self.lines), 0), dtype=np.int64)

    def body(self, rows: NDArray[np.int64]) -> bytes:
        """Return the body of a request with these rows."""
        return b"".join(self.lines.take(pa.array(rows)).to_pylist())

    def dead(self, row: int, why: str) -> DeadDocument:
        """Return the dead letter of one row."""
        document = "" if self.documents is None else self.documents[row].as_py()
        return DeadDocument(self.name, self.ids[row].as_py(), self.indices[row].as_py(), document, why)


def cut(
    rows: NDArray[np.int64], sizes: NDArray[np.int64], most_bytes: int, most_actions: int
) -> list[NDArray[np.int64]]:
    """Cut rows into requests of at most so many bytes and actions; a row that is larger goes alone."""
    ends = np.cumsum(sizes)
    chunks, start = [], 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = max(start + 1, min(stop, start + most_actions))
        chunks.append(rows[start:stop])
        start = stop
    return chunks


@dataclass
class _Left:
    """What is left of a request: rows to send again, why, and whether in smaller requests."""

    rows: NDArray[np.int64]
    why: str = ""
    smaller: bool = False


class Delivery:
    """One set of actions on its way."""

    def __init__(self, client: Elasticsearch, actions: Actions, patience: float) -> None:
        """Prepare to send ``actions``, with ``patience`` seconds of trying when nothing goes through."""
        self._client, self._actions = client, actions
        self._where = where(client)
        self._trying = Patience(patience, self._where)
        self._faults: Counter[int] = Counter()  # by row; of the whole request under -1
        self.written = Written()

    def send(self, chunks: list[NDArray[np.int64]]) -> Written:
        """Send every row until it is written or dead.

        Raises:
            SinkError: nothing can be written, for a reason that lies with the cluster.
        """
        queue = deque(chunks)
        while queue:
            rows = queue.popleft()
            try:
                left = self._sort(rows, self._request(rows))
            except Failure as error:
                left = self._failed(rows, error)
            if len(left.rows) < len(rows):
                self._trying.reset()
            if len(left.rows):
                halves = np.array_split(left.rows, 2) if left.smaller and len(left.rows) > 1 else [left.rows]
                queue.extendleft(reversed(halves))
            if left.why:
                self.written.retries += 1
                self._trying.wait(left.why)
        return self.written

    def _request(self, rows: NDArray[np.int64]) -> list[Mapping[str, Any]]:
        headers = {"accept": "application/json", "content-type": "application/x-ndjson"}
        body = self._actions.body(rows)
        answer = self._client.perform_request("POST", "/_bulk", params=_PARAMETERS, headers=headers, body=body)
        self._faults.pop(-1, None)
        return [next(iter(item.values())) for item in answer.body["items"]]

    def _sort(self, rows: NDArray[np.int64], results: list[Mapping[str, Any]]) -> _Left:
        """Count what is done, bury what is refused, and return the rest."""
        again, why, overloaded = [], "", False
        for row, result in zip(rows.tolist(), results, strict=True):
            gone = result["status"] == _GONE and self._actions.documents is None
            if "error" not in result or gone:
                self.written.count(result.get("result", "not_found"))
            elif self._again(row, result, alone=len(rows) == 1):
                again.append(row)
                why, overloaded = reason(result), overloaded or result["status"] == _OVERLOADED
            else:
                self._bury(row, reason(result))
        return _Left(np.asarray(again, dtype=np.int64), why, smaller=overloaded and len(again) == len(rows))

    def _again(self, row: int, result: Mapping[str, Any], *, alone: bool) -> bool:
        """Tell whether one refused action may go through later.

        Raises:
            SinkError: all others would be refused, too.
        """
        status, error = result["status"], result["error"]
        if status in _PASSING:
            return not (alone and _never_fits(result))
        if status in _FORBIDDEN or error["type"] in _OF_THE_CLUSTER:
            index = self._actions.indices[row].as_py()
            mend = f"remove the block from the settings of {index}" if error["type"] == _BLOCKED else "mend that"
            msg = (
                f"Elasticsearch at {self._where} lets nothing be written to {index} ({status}: {reason(result)}): "
                f"{mend} and run again"
            )
            raise SinkError(msg)
        self._faults[row] += status == _FAULT
        return status == _FAULT and self._faults[row] < _FAULTS

    def _failed(self, rows: NDArray[np.int64], error: ApiError | TransportError) -> _Left:
        """Decide what to do after a request that failed as a whole.

        Raises:
            SinkError: nothing but mending the cause would help.
        """
        status = error.meta.status if isinstance(error, ApiError) else 0
        body = error.body if isinstance(error, ApiError) else ""
        at_fault = (
            status == _TOO_LARGE or (status == _BAD_REQUEST and _is_about_content(body)) or self._keeps_breaking(error)
        )
        if at_fault and len(rows) > 1:
            self._faults.pop(-1, None)
            return _Left(rows, smaller=True)
        if at_fault or (len(rows) == 1 and _never_fits(body)):
            size = f"{int(self._actions.sizes()[rows[0]]):,} bytes"
            why = "more than Elasticsearch accepts (http.max_content_length)" if status == _TOO_LARGE else ""
            self._bury(int(rows[0]), f"{size}: {why or reason(body) or error}")
            return _Left(rows[:0])
        why = passing(error, self._where, recovering=self._trying.recovering)
        return _Left(rows, why, smaller=status == _OVERLOADED or isinstance(error, ConnectionTimeout))

    def _keeps_breaking(self, error: ApiError | TransportError) -> bool:
        """Tell whether the same request has broken too often, while the server was there and answered others."""
        if isinstance(error, ApiError):
            breaks = error.meta.status == _FAULT
        else:
            breaks = not isinstance(error, ConnectionTimeout) and self._answers()
        self._faults[-1] = self._faults[-1] + 1 if breaks else 0
        return self._faults[-1] >= _FAULTS

    def _answers(self) -> bool:
        try:
            self._client.info()
        except ApiError as error:
            return error.meta.status in _FORBIDDEN
        except TransportError:
            return False
        return True

    def _bury(self, row: int, why: str) -> None:
        self._faults.pop(-1, None)
        self.written.dead.append(self._actions.dead(row, why))


def _is_about_content(body: object) -> bool:
    """Tell whether a 400 is about what was sent, so that less of it may pass; a proxy's page is not."""
    return (
        isinstance(body, dict)
        and "type" in (body.get("error") or {})
        and body["error"]["type"] != "media_type_header_exception"
    )


def _never_fits(body: object) -> bool:
    """Tell whether a node refuses an action as overload that would be too much for it at any time."""
    found = _OPERATION.search(reason(body))
    return found is not None and int(found[1]) > int(found[2])
