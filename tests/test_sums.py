"""Of workloads that live for days what was found stands as a sum: with a restart at any time, too."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from tests.test_casebook import _Kept, _left, _pieces, _terms, _without_place

from agenttrail import jobs
from agenttrail.attribute import with_columns
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint
from agenttrail.casebook.samples import Needless
from agenttrail.detect.analytics.gpu_progress import SILENCE
from agenttrail.detect.correlation_needs import Need
from agenttrail.detect.progress import MINUTE
from agenttrail.documents import read_records
from agenttrail.entities import workload_digests
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import may_matter_named
from agenttrail.job_files import load_job
from agenttrail.schema import record
from agenttrail.simulate import simulate
from agenttrail.transforms.casework import Opening

if TYPE_CHECKING:
    from agenttrail.casebook.book import Casebook
    from agenttrail.casebook.ledger import Changes
    from agenttrail.casebook.terms import Terms
    from agenttrail.job_files import Job

_HOUR = 3_600_000_000


@dataclass(frozen=True)
class _Day:
    """A day as deliveries, each part's in order, all by time.

    Attributes:
        job: what it is of.
        terms: of the job.
        deliveries: when the first event of each begins, and it.
        findings: that a batch run leaves.
        incidents: likewise.
    """

    job: Job
    terms: Terms
    deliveries: list[tuple[int, Delivery]]
    findings: dict[str, Any]
    incidents: dict[str, Any]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> _Day:
    """Ten hours in which the trainers of a job evaluate, and sandboxes come and go."""
    folder = tmp_path_factory.mktemp("day")
    simulate(folder, agents=1, hours=10, seed=12)
    told = yaml.safe_load((folder / "job.yml").read_text())
    told["events"] = [one for one in told["events"] if one["format"] != "aws_vpc_flow"]
    (folder / "job.yml").write_text(yaml.safe_dump(told, sort_keys=False))
    job = load_job(str(folder / "job.yml"), output=str(folder / "out"))
    jobs.run(job)
    findings, incidents = _left(folder / "out")
    terms = _terms(job)
    return _Day(job, terms, _deliveries(job, terms), _without_place(findings), incidents)


def _deliveries(job: Job, terms: Terms) -> list[tuple[int, Delivery]]:
    """Return a day in blocks of its sources, each source one part; leases come first of all."""
    at = dict.fromkeys(range(len(job.sources)), 0)
    out = []
    for what, source, batch in _pieces(job, 60_000):
        begin, at[source] = at[source], at[source] + 1
        place = {"at": begin}, {"at": begin + 1}
        if what == "leases":
            out.append((0, Delivery(source, f"p{source}", *place, None, batch, begins=begin == 0)))
            continue
        format_ = FORMATS[job.sources[source].format]
        rows = may_matter_named(batch) if format_.named else terms.sieves[format_.name].may_matter(batch)
        time = int(pc.min(batch.column("event.start").cast(pa.int64())).as_py())
        some = batch.take(pa.array(rows))
        some = with_columns(some, {"log.offset": pa.array(np.full(some.num_rows, begin))})
        out.append((time, Delivery(source, f"p{source}", *place, some, begins=begin == 0)))
    return sorted(out, key=lambda one: (one[0], one[1].source, one[1].before["at"]))


@dataclass
class _Run:
    """A stream of a day, in one process.

    Attributes:
        day: of which.
        desk: that all is put before.
        kept: what it said.
        safe_point: as it was written last.
        sums: what that names.
        summed: findings that there were sums of.
    """

    day: _Day
    desk: Desk
    kept: _Kept = field(default_factory=_Kept)
    safe_point: bytes = b""
    sums: bytes | None = None
    summed: int = 0

    def say(self, changes: Changes) -> None:
        """Write down what is said, and then from where to go on."""
        self.kept.hear(changes)
        self.safe_point, self.sums = self.desk.safe_point().to_json(), self.desk.sums()

    def read(self, delivery: Delivery) -> int:
        """Return up to where the part of a delivery has been read."""
        return int(SafePoint.from_json(self.safe_point).read[str(delivery.source)].get(delivery.part, {"at": 0})["at"])

    def take(self, deliveries: list[tuple[int, Delivery]], every: int = 60) -> None:
        """Take in deliveries; judge, and let go, now and then."""
        for number, (time, delivery) in enumerate(deliveries):
            self.desk.deliver(Delivery.unpacked(delivery.packed()))
            if number % every == every - 1 and not self.desk.behind and time:
                self.say(self.desk.evict(time - _HOUR // 2))
                self.summed = max(self.summed, self.desk._book.sums.findings.num_rows)  # noqa: SLF001 - nobody else asks
        self.say(self.desk.judge())
        assert self.desk.late() == []


@pytest.fixture(autouse=True)
def _short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    _shorten(monkeypatch)


def _shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agenttrail.casebook.book._LONGEST_RECORD", 0)  # the day is shorter
    monkeypatch.setattr("agenttrail.casebook.book.SETTLED", SILENCE + 5 * MINUTE)


@pytest.fixture(scope="module")
def whole(day: _Day) -> _Run:
    """Give a stream that all has come to."""
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        run = _Run(day, Desk(day.terms))
        run.take(day.deliveries)
    return run


def test_sums_and_what_comes_later_are_together_what_a_batch_run_finds(day: _Day, whole: _Run) -> None:
    assert whole.summed > 2
    assert whole.kept.incidents == day.incidents
    assert _without_place(whole.kept.findings) == day.findings


@pytest.fixture(scope="module", params=[0.6, 0.9])
def half(request: pytest.FixtureRequest, day: _Day) -> _Run:
    """Give a stream that has come so far."""
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        run = _Run(day, Desk(day.terms))
        run.take(day.deliveries[: int(len(day.deliveries) * request.param)])
    assert run.sums is not None
    assert Delivery.unpacked(run.sums).sums is not None
    return run


def test_after_a_restart_what_was_summed_is_neither_lost_nor_counted_twice(day: _Day, half: _Run) -> None:
    again = _restarted(half)
    since = SafePoint.from_json(half.safe_point)
    left = [
        (time, one)
        for time, one in day.deliveries
        if one.leases is not None or one.before["at"] >= since.begins(one.source, one.part)
    ]
    assert len(left) < len(day.deliveries)
    again.take(left)
    assert again.kept.incidents == day.incidents
    assert _without_place(again.kept.findings) == day.findings


def test_a_desk_that_is_made_of_its_state_has_its_sums(day: _Day, half: _Run) -> None:
    again = _Run(day, Desk(day.terms), deepcopy(half.kept))
    for data in half.desk.packed():
        again.desk.deliver(Delivery.unpacked(data))
    assert again.desk.sums() == half.desk.sums()
    assert again.desk.rows == half.desk.rows
    again.take([one for one in day.deliveries if one[1].before["at"] >= half.read(one[1])])
    assert again.kept.incidents == day.incidents
    assert _without_place(again.kept.findings) == day.findings


def _restarted(run: _Run) -> _Run:
    """Return a stream that goes on from what another one wrote down."""
    leases = frozenset(
        number for number, one in enumerate(run.day.job.sources) if FORMATS[one.format].gives != "events"
    )
    told = pa.array([json.dumps(one) for one in run.kept.findings.values()], pa.string())
    findings = read_records(told, record("finding"))
    opening = Opening(run.day.terms, run.safe_point, leases, findings, tuple(run.kept.incidents), run.sums)
    return _Run(run.day, opening(), deepcopy(run.kept))


def test_what_a_rule_found_that_is_not_on_any_more_goes(day: _Day, half: _Run) -> None:
    assert half.sums is not None
    found = {one["rule.id"] for one in Delivery.unpacked(half.sums).sums.to_pylist()}  # type: ignore[union-attr]
    rules = tuple(replace(one, off="it was turned off") if one.id in found else one for one in day.job.rules)
    desk = Desk(_terms(replace(day.job, rules=rules)))
    desk.deliver(Delivery.unpacked(half.sums))
    assert not desk._book.sums.findings.num_rows  # noqa: SLF001 - nobody else asks
    assert desk._book.sums.settled == half.desk._book.sums.settled  # noqa: SLF001


def test_samples_of_the_accused_and_of_what_correlations_ask_for_stay(day: _Day) -> None:
    desk = Desk(day.terms)
    for _, one in day.deliveries:
        desk.deliver(one)
    desk.judge()
    book, asked, settled = desk._book, day.terms.asked, day.deliveries[-1][0] - 3 * _HOUR  # noqa: SLF001
    nobody, none = pa.array([], pa.binary(16)), pa.array([], pa.string())
    assert book._known is not None  # noqa: SLF001
    pods = book._known.leases.column("k8s.pod.uid")  # noqa: SLF001
    summed = Needless.of(book._segments, asked, settled, nobody, pods)  # noqa: SLF001
    assert summed.findings.num_rows > 2
    number = next(n for n, one in enumerate(asked.rules) if one.id == summed.findings.column("rule.id")[0].as_py())
    refers = replace(asked, needs=[*asked.needs, Need(np.array([number]), 2, _HOUR)])
    accused = workload_digests(summed.findings)
    for stays in (
        Needless.of(book._segments, asked, settled, accused, pods),  # noqa: SLF001
        Needless.of(book._segments, refers, settled, nobody, pods),  # noqa: SLF001
        Needless.of(book._segments, asked, settled, nobody, none),  # noqa: SLF001
    ):
        assert not stays.findings.num_rows
        assert _gone(book, stays) < _gone(book, summed) - pc.sum(summed.findings.column("event.count")).as_py() + 1


def _gone(book: Casebook, needless: Needless) -> int:
    """Return how many rows are samples that are not needed."""
    assert book._known is not None  # noqa: SLF001
    return sum(int(needless.among(one, book._known).sum()) for one in book._segments)  # noqa: SLF001


@pytest.mark.parametrize("known", [True, False])
def test_sums_of_pods_stay_as_long_as_these_live_whether_anything_is_heard_of_them_or_not(
    day: _Day, half: _Run, *, known: bool
) -> None:
    assert half.sums is not None
    desk = Desk(day.terms)
    desk.deliver(Delivery.unpacked(half.sums))
    for time, one in day.deliveries:
        if known and time == 0:
            desk.deliver(one)
    found = half.desk._book.sums.findings.num_rows  # noqa: SLF001 - nobody else asks
    desk.evict(day.deliveries[-1][0])
    assert desk._book.sums.findings.num_rows == (found if known else 0)  # noqa: SLF001


def test_what_is_summed_already_is_late_if_it_comes_only_now(day: _Day, whole: _Run) -> None:
    desk, rows = whole.desk, whole.desk.rows
    gpus = [number for number, one in enumerate(day.job.sources) if one.format == "dcgm_prometheus"]
    settled = desk._book.sums.settled  # noqa: SLF001 - nobody else asks
    for time, one in day.deliveries:
        if one.source in gpus and time < settled:
            desk.deliver(one)
    whole.kept.hear(desk.judge())
    late = sum(batch.num_rows for _, batch in desk.late())
    assert late > 0
    assert _without_place(whole.kept.findings) == day.findings
    whole.kept.hear(desk.evict(day.deliveries[-1][0] - _HOUR // 2 + 1))
    assert _without_place(whole.kept.findings) == day.findings
    assert desk.rows <= rows
