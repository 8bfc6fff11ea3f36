"""What is to be said to files and Elasticsearch, and only then from where to read again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import apache_beam as beam

from agenttrail.accounting import ACCOUNT, DEAD, Account
from agenttrail.counters import count, count_letters, observe
from agenttrail.sinks.versions import Versions
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from agenttrail.casebook.desk import Said
    from agenttrail.sinks.elasticsearch_changes import ChangesWriter


class _Turn:
    """Gives what was said in the order in which it was, one at a time, however a runner hands it on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run, self._next = "", 0
        self._ahead: dict[int, Said] = {}

    def next(self, said: Said) -> Iterator[Said]:
        """Yield what may be written now that this has come; what waits is nowhere, and said again after a restart."""
        with self._lock:
            if said.run != self._run:
                self._run, self._next, self._ahead = said.run, 0, {}
            self._ahead[said.number] = said
            while self._next in self._ahead:
                yield self._ahead.pop(self._next)
                self._next += 1


_TURN = _Turn()


class _Say(beam.DoFn):
    def __init__(self, directory: str, elasticsearch: Mapping[str, Any] | None) -> None:
        self._directory, self._settings = directory, elasticsearch
        self._writer: ChangesWriter | None = None

    def setup(self) -> None:
        self._versions = Versions(self._directory)
        if self._settings is not None:
            from agenttrail.sinks.elasticsearch import ElasticsearchSettings
            from agenttrail.sinks.elasticsearch_changes import ChangesWriter

            self._writer = ChangesWriter(ElasticsearchSettings(**self._settings))

    def process(self, said: Said) -> Iterator[Any]:
        for one in _TURN.next(said):
            yield from self._written(one)

    def _written(self, said: Said) -> Iterator[Any]:
        # files first: what is not in Elasticsearch after a restart is told again from there
        self._versions.append(said.changes)
        if self._writer is not None:
            from agenttrail.sinks.elasticsearch_books import told

            for kind, written in self._writer.write(said.changes):
                yield from told(kind, written)
        self._versions.safe(said.safe_point, said.sums)
        now = time.time_ns() // 1000
        yield beam.pvalue.TaggedOutput(ACCOUNT, Account().found(TALLY.say(said, now)))
        observe(said.rows, None if TALLY.passed is None else now - TALLY.passed)


class Say(beam.PTransform):
    """What is to be said to the output directory and Elasticsearch; gives dead letters and accounts."""

    def __init__(self, directory: str, elasticsearch: Mapping[str, Any] | None) -> None:
        """Write to a ``directory`` and, as a job's settings say, to Elasticsearch."""
        super().__init__()
        self._fn = _Say(directory, elasticsearch)

    def expand(self, said: beam.PCollection[Said]) -> Any:
        """Return the outputs by tag."""
        return said | beam.ParDo(self._fn).with_outputs(DEAD, ACCOUNT, main="none")


class _KeepDead(beam.DoFn):
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def process(self, letters: pa.RecordBatch) -> Iterator[None]:
        Versions(self._directory).dead(letters)
        count_letters(letters)
        if letters.num_rows:
            TALLY.add_letters(letters.column("error.stage")[0].as_py(), letters.num_rows)
        yield from ()


class KeepDead(beam.PTransform):
    """Dead letters to the output directory."""

    def __init__(self, directory: str) -> None:
        """Write below a ``directory``."""
        super().__init__()
        self._fn = _KeepDead(directory)

    def expand(self, letters: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[None]:
        """Return nothing."""
        return letters | beam.ParDo(self._fn)


class _Keep(beam.DoFn):
    def process(self, account: Account) -> Iterator[None]:
        TALLY.add(account)
        count(account)
        yield from ()


class KeepAccounts(beam.PTransform):
    """Accounts to the tally of this process, and to the metrics of the runner."""

    def expand(self, accounts: beam.PCollection[Account]) -> beam.PCollection[None]:
        """Return nothing."""
        return accounts | beam.ParDo(_Keep())
