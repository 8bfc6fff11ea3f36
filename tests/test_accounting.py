"""The books: sums of any order, every line somewhere, and a run that refuses to lie."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.accounting import ACCOUNT, COUNTS, DEAD, Account, check, total
from agenttrail.errors import AccountingError
from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.jobs import notes, report
from agenttrail.parsing import Block
from agenttrail.transforms.parsing import Source, _Parse

if TYPE_CHECKING:
    from random import Random

FORMAT_DATA = Path(__file__).parent / "data" / "formats"
_ALWAYS = {"lines", "with_events", "skipped", "dead", "events", "attributed", "ambiguous", "unattributed"}
_COUNT = st.integers(0, 10**12)
_ACCOUNT = st.builds(
    Account,
    st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from(COUNTS)), _COUNT).map(Counter),
    st.dictionaries(st.sampled_from(["parse", "attribute"]), st.integers(0, 50).map(lambda n: n / 4)).map(Counter),
    st.dictionaries(st.sampled_from(["vpc-a", "vpc-b"]), _COUNT).map(Counter),
    st.dictionaries(st.tuples(st.sampled_from(["findings", "incidents"]), st.just("refused")), _COUNT).map(Counter),
)


def _as_plain(account: Account) -> list[dict[Any, Any]]:
    parts = (account.counts, account.seconds, account.unknown_scopes, account.written)
    return [{key: value for key, value in part.items() if value} for part in parts]


@given(st.lists(_ACCOUNT, max_size=6), st.randoms(use_true_random=False), st.integers(0, 6))
def test_accounts_add_up_in_any_order_and_grouping(accounts: list[Account], random: Random, cut: int) -> None:
    """As a runner may combine them; and the parts stay as they were."""
    before = pickle.dumps(accounts)
    whole = total(accounts)
    shuffled = list(accounts)
    random.shuffle(shuffled)
    halves = total([total(shuffled[:cut]), total(shuffled[cut:])])
    assert _as_plain(halves) == _as_plain(whole)
    assert pickle.dumps(accounts) == before
    for what in COUNTS:
        assert sum(whole.counts[source, what] for source in range(3)) == sum(
            account.counts[source, what] for account in accounts for source in range(3)
        )


@given(_ACCOUNT)
def test_what_is_reported_is_what_was_counted(account: Account) -> None:
    """Zeros are left out, but for those that a reader looks for."""
    for source in range(3):
        shown = account.of_source(source)
        assert {what: count for what, count in shown.items() if count} == {
            what: account.counts[source, what] for what in COUNTS if account.counts[source, what]
        }
        assert shown.keys() >= _ALWAYS
        assert list(shown) == [what for what in COUNTS if what in shown]
    summed = account.total(3)
    assert {what: summed.get(what, 0) for what in COUNTS} == {
        what: sum(account.counts[source, what] for source in range(3)) for what in COUNTS
    }


_BALANCED = {
    "lines": 10, "with_events": 7, "skipped": 2, "dead": 1,
    "events": 8, "attributed": 5, "ambiguous": 1, "unattributed": 2,
}  # fmt: skip


def _balanced(*sources: int) -> Account:
    return Account(Counter({(source, what): count for source in sources for what, count in _BALANCED.items()}))


def test_books_that_balance_pass() -> None:
    check(_balanced(0, 1), ["a", "b"])
    check(Account(), ["a"])


@pytest.mark.parametrize("what", sorted(_BALANCED))
@pytest.mark.parametrize("by", [1, -1])
def test_books_that_do_not_balance_fail_the_run_and_name_the_source(what: str, by: int) -> None:
    """Also where two sources are wrong by as much, so that the sum would be right."""
    account = _balanced(0, 1)
    account.counts[0, what] += by
    account.counts[1, what] -= by
    with pytest.raises(AccountingError) as caught:
        check(account, ["the first", "the second"])
    assert caught.value.exit_status == 1
    assert "the first: " in str(caught.value)
    assert "the second: " in str(caught.value)


def test_the_scopes_with_most_rows_are_named() -> None:
    accounts = [Account.of(0, scopes={f"scope-{number}": 1, "scope-7": 1}) for number in range(100)]
    assert total(accounts).most_unknown()[:3] == [("scope-7", 100), ("scope-0", 1), ("scope-1", 1)]
    assert len(total(accounts).most_unknown()) == 20


def test_scopes_that_logs_make_up_do_not_fill_the_memory() -> None:
    accounts = [Account.of(0, scopes={f"scope-{number}-{part}": 1 for part in range(5_000)}) for number in range(4)]
    assert len(total(accounts).unknown_scopes) == 10_000


@pytest.mark.parametrize("format_", sorted(FORMATS))
def test_the_lines_of_every_format_balance(format_: str) -> None:
    """On a block of good, bad and blank lines."""
    lines = {
        "aws_vpc_flow": b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 40 1772409600 1772409660 ACCEPT OK\n\nnonsense\n\xff\n",
        "address_leases": b"address,start\n10.0.0.1,2026-03-02T00:00:00Z\n\n10.0.0.400,2026-03-02T00:00:00Z\n",
        "kubernetes_pods": b'{"items": [{"metadata": {}}, 5, {"metadata": {}, "status": {"podIP": "x"}}]}',
    }
    block = Block(lines.get(format_, b'{"start": 1}\n\n{"a\n[]\n'), "log", 0, source=0)
    outputs = list(_Parse([Source("log", format_, {})]).process(block))
    tagged = {output.tag: output.value for output in outputs if isinstance(output, beam.pvalue.TaggedOutput)}
    counts = {what: tagged[ACCOUNT].counts[0, what] for what in COUNTS}
    assert counts["dead"] == tagged[DEAD].num_rows > 0
    rows = sum(output[1].num_rows for output in outputs if isinstance(output, tuple))
    assert rows == counts["leases" if FORMATS[format_].gives == "leases" else "events"]
    assert counts["skipped"] > 0
    assert counts["lines"] == counts["with_events"] + counts["skipped"] + counts["dead"]
    assert counts["bytes"] == len(block.data)


# -- what run.json says


@pytest.fixture
def job(tmp_path: Path) -> Any:
    """Return a job of one flow log and no leases."""
    (tmp_path / "a.log").write_text("x")
    (tmp_path / "job.yml").write_text("events: [{format: aws_vpc_flow, path: a.log, scope: vpc-id}]\n")
    return load_job(tmp_path / "job.yml")


def test_the_report_says_what_was_counted_and_what_could_not_be_seen(job: Any) -> None:
    account = _balanced(0).add(Account.of(0, seconds={"parse": 1.23456}, scopes={"vpc-z": 7}))
    account.written[("findings", "refused")] += 2
    told = report(job, account, {"findings": {"high": 2, "low": 1}, "incidents": {"high": 1}})
    (source,) = told["sources"]
    assert source == {"name": "aws_vpc_flow a.log", "format": "aws_vpc_flow", **_BALANCED}
    assert told["total"] == _BALANCED
    assert (told["findings"], told["incidents"]) == (3, 1)
    assert told["seconds"] == {"parse": 1.235}
    rules = (*job.rules, *job.correlations)
    off = {rule.name: rule.off for rule in rules if rule.off}
    assert off
    assert told["rules"] == {"on": len(rules) - len(off), "off": off}
    assert notes(job, account) == [
        *(f"rule {name} is off: {why}" for name, why in off.items()),
        "the job names no leases: nothing can be attributed to a workload",
        "no source tells of tool calls: findings name none, and what rules ask of tool calls is not seen",
        "no source tells of GPUs: their use is not seen",
        "no source tells of training progress: GPUs that are busy without a step are not seen",
        "7 events are in scope 'vpc-z', in which there is no lease",
        "aws_vpc_flow a.log: 1 of 10 lines could not be read; see dead_letters.ndjson",
        "Elasticsearch refused 2 documents; see dead_letters.ndjson",
    ]


def test_a_source_of_which_nothing_could_be_read_is_told_of_first_with_the_format_that_it_looks_like(
    tmp_path: Path,
) -> None:
    """One of which something was read is told of last; what looks like nothing is asked about."""
    (tmp_path / "flows.log").write_bytes((FORMAT_DATA / "aws_vpc_flow" / "sample.log").read_bytes())
    (tmp_path / "tales.log").write_text("once upon a time\n")
    (tmp_path / "job.yml").write_text(
        "events:\n  - {format: alibaba_vpc_flow, path: flows.log}\n  - {format: aws_vpc_flow, path: tales.log}\n"
        "  - {format: aws_vpc_flow, path: flows.log}\n"
    )
    job = load_job(tmp_path / "job.yml")
    account = Account.of(0, lines=12, dead=12).add(Account.of(1, lines=4, dead=1, skipped=3))
    account.add(Account.of(2, lines=9, dead=8, with_events=1))
    said = notes(job, account)
    first = "not one of 12 lines could be read: it looks like aws_vpc_flow; see dead_letters.ndjson"
    second = "not one of 1 lines could be read: is that its format?; see dead_letters.ndjson"
    assert said[:2] == [f"alibaba_vpc_flow flows.log: {first}", f"aws_vpc_flow tales.log: {second}"]
    assert [note for note in said if "could not be read" in note] == [
        "aws_vpc_flow flows.log: 8 of 9 lines could not be read; see dead_letters.ndjson"
    ]


def test_a_list_that_no_rule_uses_is_told_of_before_the_rules_that_are_off(tmp_path: Path) -> None:
    """A slip of the pen turns rules off; lists that the program ships or reads itself are no slip."""
    (tmp_path / "a.log").write_text("x")
    (tmp_path / "job.yml").write_text(
        "events: [{format: aws_vpc_flow, path: a.log}]\n"
        "lists: {egres_allow: [192.0.2.0/24], my_own: [a], internal: [10.0.0.0/8]}\n"
    )
    said = notes(load_job(tmp_path / "job.yml"), Account())
    assert said[:2] == [
        "no rule uses the list 'egres_allow'; did you mean egress_allow?",
        "no rule uses the list 'my_own'",
    ]
    assert said[2].startswith("rule ")
    assert not any("no rule uses" in note for note in said[2:])


def test_leases_whose_times_name_no_zone_are_told_of(tmp_path: Path) -> None:
    """As many as there are, with what was made of them; of leases that all name one nothing is said."""
    (tmp_path / "leases.csv").write_text("address,start,end,agent\n")
    events = "events: [{format: aws_vpc_flow, path: leases.csv}]\n"
    (tmp_path / "job.yml").write_text(events + "leases: [{format: address_leases, path: leases.csv}]\n")
    job = load_job(tmp_path / "job.yml")
    rows = b"10.0.0.1,2026-03-02T00:00:00,,ann\n10.0.0.2,2026-03-02T00:00:00Z,,bob\n"
    outputs = list(_Parse(job.sources).process(Block(b"address,start,end,agent\n" + rows, "leases.csv", 0, source=1)))
    (account,) = [one.value for one in outputs if isinstance(one, beam.pvalue.TaggedOutput) and one.tag == ACCOUNT]
    told = "address_leases leases.csv: 1 of 2 leases have a time without a zone, which is taken for UTC"
    assert [note for note in notes(job, account) if "zone" in note] == [told]
    del account.counts[1, "without_zone"]
    assert [note for note in notes(job, account) if "zone" in note] == []


def test_sources_keep_their_own_books(job: Any) -> None:
    assert isinstance(job.sources[0], Source)
    account = Account.of(0, lines=3, skipped=3).add(Account.of(1, lines=5, dead=5))
    assert (account.of_source(0)["lines"], account.of_source(1)["lines"], account.total(2)["lines"]) == (3, 5, 8)
