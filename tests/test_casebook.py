"""A casebook says what the batch job says, in whatever order and pieces everything came."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from agenttrail import jobs
from agenttrail.attribute import with_columns
from agenttrail.casebook.book import Casebook
from agenttrail.casebook.segments import reporting
from agenttrail.casebook.terms import Terms
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.text import constant
from agenttrail.detect.analytics.gpu_progress import SILENCE
from agenttrail.detect.progress import MINUTE
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import may_matter_named
from agenttrail.gathering.observed import distinct
from agenttrail.job_files import load_job
from agenttrail.jobs import view_of
from agenttrail.simulate import simulate
from agenttrail.sources.files import plan_ranges, read_blocks, read_document
from agenttrail.transforms.parsing import with_scope

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrail.casebook.ledger import Changes
    from agenttrail.job_files import Job

KINDS = {name: format_.kind for name, format_ in FORMATS.items()}


def _terms(job: Job) -> Terms:
    flows = [
        one.format if FORMATS[one.format].gives == "events" and not FORMATS[one.format].named else None
        for one in job.sources
    ]
    return Terms.of(job.rules, job.correlations, job.lists, KINDS, flows, view_of(job))


def _pieces(job: Job, block_bytes: int) -> list[tuple[str, int, pa.RecordBatch]]:
    """Return what the files of a job hold, as parsers give it."""
    out = []
    for file in job.files:
        source = job.sources[file.source]
        format_ = FORMATS[source.format]
        parse = format_.parser(source.settings)
        if format_.gives == "leases":
            parsed = parse(read_document(file))
            leases = parsed.events
            out.append(("leases", file.source, with_scope(leases, source)))
            continue
        for part in plan_ranges(file, format_.headers):
            for block in read_blocks(part, format_.headers, block_bytes):
                if not hasattr(block, "data") or not hasattr(block, "header"):
                    continue
                parsed = parse(block)
                out.append(("events", file.source, with_scope(parsed.events, source)))
                if parsed.leases is not None and parsed.leases.num_rows:
                    leases = parsed.leases
                    if source.scope is not None:
                        leases = with_columns(leases, {"lease.scope": constant(source.scope, leases.num_rows)})
                    out.append(("leases", file.source, leases))
    return out


class _Kept:
    """What is left of all that a casebook said."""

    def __init__(self) -> None:
        self.findings: dict[str, Any] = {}
        self.incidents: dict[str, Any] = {}
        self.timelines: dict[str, list[Any]] = {}

    def hear(self, changes: Changes) -> None:
        for kept, batch, gone, id_ in (
            (self.findings, changes.findings, changes.gone_findings, "finding.id"),
            (self.incidents, changes.incidents, changes.gone_incidents, "incident.id"),
        ):
            kept.update({one[id_]: one for one in map(json.loads, json_objects(batch).to_pylist())})
            for id__ in gone.to_pylist():
                kept.pop(id__)
        for id_ in changes.incidents.column("incident.id").to_pylist() if changes.stories else ():
            mine = changes.timeline.filter(pc.equal(changes.timeline.column("incident.id"), id_))
            self.timelines[id_] = json_objects(mine).to_pylist()


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("day")
    simulate(folder, agents=3, hours=4, seed=11)
    job = load_job(str(folder / "job.yml"), output=str(folder / "out"))
    jobs.run(job)
    return job, *_left(folder / "out")


def _left(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the findings and incidents that a batch run left, by id."""
    findings, incidents = (
        {one[f"{kind}.id"]: one for one in map(json.loads, (out / f"{kind}s.ndjson").read_text().splitlines())}
        for kind in ("finding", "incident")
    )
    return findings, incidents


def _without_place(findings: dict[str, Any]) -> dict[str, Any]:
    for one in findings.values():
        for event in one.get("finding.evidence", ()):
            event.pop("log.file.path", None)
            event.pop("log.offset", None)
    return findings


def _take_in(book: Casebook, job: Job, terms: Terms, what: str, source: int, batch: pa.RecordBatch) -> None:
    format_ = FORMATS[job.sources[source].format]
    if what == "leases":
        book.observe(batch)
    elif format_.named:
        book.take(source, None, batch)
    else:
        book.take(source, format_.name, batch.take(pa.array(terms.sieves[format_.name].may_matter(batch))))


@pytest.mark.parametrize(("seed", "block_bytes", "every"), [(1, 1 << 20, 50), (2, 60_000, 200), (3, 1 << 17, 7)])
def test_in_any_order_it_ends_where_the_batch_job_ends(day: Any, seed: int, block_bytes: int, every: int) -> None:
    job, findings, incidents = day
    terms = _terms(job)
    pieces = _pieces(job, block_bytes)
    random.Random(seed).shuffle(pieces)
    book, kept = Casebook(terms), _Kept()
    for number, (what, source, batch) in enumerate(pieces):
        _take_in(book, job, terms, what, source, batch)
        if number % every == every - 1:
            kept.hear(book.judge(urgent=bool(number % 3)))
    kept.hear(book.judge())
    at_once, whole = Casebook(terms), _Kept()
    for what, source, batch in pieces:
        _take_in(at_once, job, terms, what, source, batch)
    whole.hear(at_once.judge())
    assert {id_: kept.timelines[id_] for id_ in kept.incidents} == whole.timelines
    assert kept.incidents == incidents
    assert _without_place(kept.findings) == _without_place(findings)


@pytest.mark.parametrize("every", [40, 150])
def test_what_ended_is_let_go_and_what_was_said_of_it_stands(
    day: Any, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agenttrail.casebook.book._LONGEST_RECORD", 0)  # the day is shorter
    monkeypatch.setattr("agenttrail.casebook.book.SETTLED", SILENCE + 5 * MINUTE)
    job, findings, incidents = day
    terms = _terms(job)
    pieces = sorted(_pieces(job, 30_000), key=lambda piece: (piece[0] != "leases", _first(piece[2])))
    book, kept, taken = Casebook(terms), _Kept(), 0
    for number, (what, source, batch) in enumerate(pieces):
        format_ = FORMATS[job.sources[source].format]
        if what == "leases":
            book.observe(batch)
            continue
        rows = may_matter_named(batch) if format_.named else terms.sieves[format_.name].may_matter(batch)
        some = batch.take(pa.array(rows))
        taken += some.num_rows
        book.take(source, None if format_.named else format_.name, some)
        if number % every == every - 1:
            kept.hear(book.judge(urgent=True))
            # a block is no longer than some minutes
            kept.hear(book.evict(_first(batch) - 1_800_000_000))
    kept.hear(book.judge())
    assert book.late() == []
    assert kept.incidents == incidents
    assert _without_place(kept.findings) == _without_place(findings)
    kept.hear(book.evict(_first(batch) - 1_800_000_000))
    assert kept.incidents == incidents
    # the day is not over, and workers of a training job outlive it; but most samples of their GPUs prove nothing
    assert book.rows < 0.7 * taken


def _first(batch: pa.RecordBatch) -> int:
    times = batch.column("event.start" if "event.start" in batch.schema.names else "lease.start").cast(pa.int64())
    return int(pc.min(times).as_py() or 0)


def test_without_leases_it_lets_go_all_the_same(day: Any) -> None:
    job, _, _ = day
    terms = _terms(job)
    book = Casebook(terms)
    events = [(source, batch) for what, source, batch in _pieces(job, 1 << 20) if what == "events"]
    for source, batch in events:
        _take_in(book, job, terms, "events", source, batch)
    book.judge()
    reports = sum(int(reporting(segment.raw).sum()) for segment in book._segments)  # noqa: SLF001 - to tell them apart
    assert book.rows > reports > 0
    book.evict(max(_first(batch) for _, batch in events) + 10 * 86_400_000_000)
    # reports that no sample is left to need go, but for the farthest of each source
    assert book.rows < 0.01 * reports


def test_leases_that_are_read_again_are_held_once(day: Any) -> None:
    job, _, _ = day
    leases = [batch for what, _, batch in _pieces(job, 1 << 20) if what == "leases"]
    once = distinct(leases).num_rows
    assert distinct([*leases * 5]).num_rows == once > 0


def test_what_opens_an_incident_is_told_at_once_and_with_its_timeline_when_everything_is(day: Any) -> None:
    job, findings, incidents = day
    terms = _terms(job)
    alone = {one.id for one in job.rules if set(one.datasets) & {*terms.plans, "conversation"}}
    opened = {
        one["incident.id"]
        for one in findings.values()
        if one["finding.severity"] in {"medium", "high", "critical"} and one["rule.id"] in alone
    }
    book, kept = Casebook(terms), _Kept()
    for what, source, batch in _pieces(job, 1 << 20):
        _take_in(book, job, terms, what, source, batch)
    urgent = book.judge(urgent=True)
    kept.hear(urgent)
    assert not urgent.stories
    assert urgent.timeline.num_rows == 0
    assert opened <= kept.incidents.keys() <= incidents.keys()
    assert 0 < urgent.findings.num_rows < len(findings) / 2  # what opens none waits
    again = book.judge(urgent=True)
    assert again.findings.num_rows == again.incidents.num_rows == 0
    whole = book.judge()
    kept.hear(whole)
    assert whole.stories
    assert whole.incidents.num_rows == len(incidents)  # those of before, too: their timelines are not told yet
    assert kept.timelines.keys() == incidents.keys()
    assert all(kept.timelines.values())
    assert kept.incidents == incidents
    assert _without_place(kept.findings) == _without_place(findings)
    assert book.judge().incidents.num_rows == 0


def test_more_of_the_same_is_not_urgent(day: Any) -> None:
    """It would change incidents, but waits until everything is judged."""
    job, _, _ = day
    terms = _terms(job)
    pieces = _pieces(job, 1 << 20)
    book = Casebook(terms)
    for what, source, batch in pieces:
        if what == "leases":
            _take_in(book, job, terms, what, source, batch)
    flows = [piece for piece in pieces if piece[0] == "events" and not FORMATS[job.sources[piece[1]].format].named]
    for shift in (0, 1_000_000):
        for what, source, batch in flows:
            _take_in(book, job, terms, what, source, _later(batch, shift))
        told = book.judge(urgent=True)
        assert bool(told.incidents.num_rows) == (shift == 0)
    assert book.judge().incidents.num_rows > 0


def _later(batch: pa.RecordBatch, shift: int) -> pa.RecordBatch:
    """Return events that much later, in microseconds, as another record would tell them."""
    moved = {
        name: pc.add(batch.column(name).cast(pa.int64()), shift).cast(batch.column(name).type)
        for name in ("event.start", "event.end")
        if name in batch.schema.names
    }
    original = pc.binary_join_element_wise(batch.column("event.original").cast(pa.binary()), b" %d" % shift, b"")
    return with_columns(batch, moved | {"event.original": original})


def test_a_restart_between_what_is_urgent_and_everything_tells_all_timelines(day: Any) -> None:
    job, findings, incidents = day
    terms = _terms(job)
    pieces = _pieces(job, 1 << 20)
    book, kept = Casebook(terms), _Kept()
    for what, source, batch in pieces:
        _take_in(book, job, terms, what, source, batch)
    urgent = book.judge(urgent=True)
    kept.hear(urgent)
    assert not kept.timelines
    again = Casebook(terms)
    doubtful = again.remember(
        urgent.findings.drop_columns(["finding.evidence"]), urgent.incidents.column("incident.id").to_pylist()
    )
    for what, source, batch in pieces:
        _take_in(again, job, terms, what, source, batch)
    again.doubt([doubtful])
    kept.hear(again.judge())
    assert kept.timelines.keys() == incidents.keys()
    assert all(kept.timelines.values())
    assert kept.incidents == incidents
    assert _without_place(kept.findings) == _without_place(findings)


@pytest.mark.parametrize("comes", ["nothing", "tool calls"])
@pytest.mark.parametrize("stands", [False, True])
def test_what_was_found_before_a_restart_goes_with_what_it_rests_on_unless_that_cannot_be_told(
    day: Any, comes: str, *, stands: bool
) -> None:
    """What it rests on has not come again: since it matters no more, or since it is gone where it was read."""
    job, _, _ = day
    terms = _terms(job)
    before, kept = Casebook(terms), _Kept()
    for what, source, batch in _pieces(job, 1 << 20):
        _take_in(before, job, terms, what, source, batch)
    said = before.judge()
    kept.hear(said)
    again = Casebook(terms)
    doubtful = again.remember(said.findings.drop_columns(["finding.evidence"]), list(kept.incidents))
    if stands:
        again.stand(again.latest())
    for what, source, batch in _pieces(job, 1 << 20) if comes != "nothing" else ():
        if what == "leases" or FORMATS[job.sources[source].format].named:
            _take_in(again, job, terms, what, source, batch)
    again.doubt([doubtful])
    now = again.judge()
    gone = set(now.gone_findings.to_pylist()), set(now.gone_incidents.to_pylist())
    if stands:
        assert gone == (set(), set())
        whole = {one["incident.id"]: one for one in map(json.loads, json_objects(now.incidents).to_pylist())}
        assert {id_: one["finding.id"] for id_, one in whole.items()} == {
            id_: one["finding.id"] for id_, one in kept.incidents.items()
        }
    else:
        found = set(now.findings.column("finding.id").to_pylist())
        assert gone[0] == kept.findings.keys() - found
        assert gone[0]
        assert gone[1] == kept.incidents.keys() - set(now.incidents.column("incident.id").to_pylist())
        assert gone[1]


def test_calls_of_a_pod_that_no_list_names_are_held_as_long_as_it_is_heard_of(day: Any) -> None:
    job, _, _ = day
    terms = _terms(job)
    book = Casebook(terms)
    calls = [
        (source, batch)
        for what, source, batch in _pieces(job, 1 << 20)
        if what == "events" and job.sources[source].format == "otlp_spans"
    ]
    last = max(int(pc.max(batch.column("event.start").cast(pa.int64())).as_py()) for _, batch in calls)
    for source, batch in calls:
        book.take(source, None, batch)
    book.evict(last)
    assert book.rows == sum(batch.num_rows for _, batch in calls) > 0
    book.evict(last + 40 * 86_400_000_000)
    assert book.rows == 0
