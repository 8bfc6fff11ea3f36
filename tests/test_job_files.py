"""Job files: what is right becomes a job, what is wrong is told, all of it, with its line."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.errors import DefinitionError
from agenttrail.job_files import DEFAULT_TOLERANCE, DEFAULT_WAIT, Job, duration, load_job

if TYPE_CHECKING:
    from pathlib import Path

JOB = """\
name: a-day
events:
  - {format: aws_vpc_flow, path: "logs/*.log", scope: vpc-id}
  - {format: alibaba_vpc_flow, path: logs/ali.jsonl}
leases:
  - {format: kubernetes_pods, path: pods.json, scope: vpc-1}
  - {format: address_leases, path: more.csv}
"""
RULE = """\
title: A rule
id: 11111111-1111-4111-8111-111111111111
level: high
logsource: {product: agenttrail, category: network}
detection:
  peer: {peer.ip|expand: '%peers%'}
  condition: peer
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files that the job names."""
    (tmp_path / "logs").mkdir()
    for name in ("logs/b.log", "logs/a.log", "logs/ali.jsonl", "pods.json", "more.csv"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "own.yml").write_text(RULE)
    return tmp_path


def _load(folder: Path, text: str, **more: Any) -> Job:
    (folder / "job.yml").write_text(text, encoding="utf-8")
    return load_job(folder / "job.yml", **more)


def _problems(folder: Path, text: str, **more: Any) -> list[str]:
    """Return the problems of a job file without its folder."""
    with pytest.raises(DefinitionError) as caught:
        _load(folder, text, **more)
    assert caught.value.exit_status == 2
    return [line.replace(f"{folder}/", "").removeprefix("job.yml:") for line in str(caught.value).splitlines()]


# -- what is right


def test_a_job_is_a_value_with_all_that_the_graph_needs(folder: Path) -> None:
    job = _load(folder, JOB)
    assert job.name == "a-day"
    assert [(source.format, source.scope, source.scope_column) for source in job.sources] == [
        ("aws_vpc_flow", None, "cloud.vpc.id"), ("alibaba_vpc_flow", None, None),
        ("kubernetes_pods", "vpc-1", None), ("address_leases", None, None),
    ]  # fmt: skip
    assert [(file.shown, file.source, file.size) for file in job.files] == [
        ("logs/a.log", 0, 2), ("logs/b.log", 0, 2), ("logs/ali.jsonl", 1, 2), ("pods.json", 2, 2), ("more.csv", 3, 2),
    ]  # fmt: skip
    assert (job.tolerance, job.wait) == (DEFAULT_TOLERANCE, DEFAULT_WAIT) == (2_000_000, 600_000_000)
    assert (job.directory, job.write_events, job.elasticsearch) == (str(folder / "out"), False, None)
    assert {"impact/mining-verdict", "impact/gpu-use-without-steps"} <= {rule.name for rule in job.rules}
    assert {"impact/gpu-diversion"} <= {one.name for one in job.correlations}
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301 - our own; workers get jobs this way


def test_a_job_without_a_name_is_called_after_its_file(folder: Path) -> None:
    assert _load(folder, JOB.removeprefix("name: a-day\n")).name == "job"


def test_paths_are_those_from_the_jobs_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    job = _load(folder, f"{JOB}rules: [rules]\nlists: {{peers: [203.0.113.0/24]}}\noutput: {{directory: found}}\n")
    assert job.directory == str(folder / "found")
    assert [rule.name for rule in job.rules] == ["own"]
    assert _load(folder, f"{JOB}output: {{directory: /elsewhere}}\n").directory == "/elsewhere"
    assert _load(folder, f"{JOB}output: {{directory: 'gs://bucket/out'}}\n").directory == "gs://bucket/out"
    assert _load(folder, JOB, output="here").directory == "here"


def test_lists_of_a_job_replace_those_that_ship(folder: Path) -> None:
    lists = _load(folder, f"{JOB}lists: {{internal: [192.0.2.0/24], mine: [a, 5]}}\n").lists
    assert lists["internal"] == ("192.0.2.0/24",)
    assert lists["mine"] == ("a", "5")
    assert "169.254.169.254" in lists["metadata_services"]


def test_a_rule_whose_list_is_empty_is_off_and_says_why(folder: Path) -> None:
    off = {rule.name: rule.off for rule in _load(folder, JOB).rules if rule.off}
    assert off
    assert set(off.values()) == {"its list egress_allow is empty"}
    listed = _load(folder, f"{JOB}lists: {{egress_allow: [203.0.113.0/24]}}\n")
    assert not [rule for rule in listed.rules if rule.off]


@pytest.mark.parametrize(
    ("text", "micros"),
    [("500ms", 500_000), ("2s", 2_000_000), ("1.5s", 1_500_000), ("10m", 600_000_000), ("1h", 3_600_000_000),
     ("1d", 86_400_000_000), (2, 2_000_000), (0.25, 250_000), (0, 0)],
)  # fmt: skip
def test_durations(folder: Path, text: str | float, micros: int) -> None:
    assert duration(text) == micros
    job = _load(folder, f"{JOB}attribution: {{tolerance: {text}, wait: {text}}}\n")
    assert (job.tolerance, job.wait) == (micros, micros)


# -- Elasticsearch and secrets


def test_secrets_stay_variables_until_a_worker_connects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ES_URL", "http://localhost:9200")
    monkeypatch.setenv("ES_KEY", "hunter2hunter2")
    job = _load(folder, f'{JOB}output: {{elasticsearch: {{url: "${{ES_URL}}", api_key: "${{ES_KEY}}"}}}}\n')
    assert job.elasticsearch == {"url": "${ES_URL}", "api_key": "${ES_KEY}"}
    assert b"hunter2" not in pickle.dumps(job)


def test_an_address_on_the_command_line_brings_its_credentials_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", "hunter2hunter2")
    job = _load(folder, JOB, elasticsearch="http://localhost:9200")
    assert job.elasticsearch == {"url": "http://localhost:9200", "api_key": "${ELASTICSEARCH_API_KEY}"}


@pytest.mark.parametrize(
    "section",
    [
        '{url: "http://h:9200", api_key: hunter2hunter2}',
        '{url: "http://h:9200", username: elastic, password: hunter2hunter2}',
        '{url: "http://h:9200", api_key: "hunter2hunter2${ES_KEY}"}',
        '{url: "http://elastic:hunter2hunter2@h:9200"}',
        '{url: "http://h:9200", api_key: "${ES_KEY}", username: hunter2hunter2}',
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.setenv("ES_KEY", "k")
    problems = _problems(folder, f"{JOB}output: {{elasticsearch: {section}}}\n")
    assert problems
    assert all(problem.startswith("8: ") for problem in problems)
    assert "hunter2" not in str(problems)


def test_a_variable_that_is_not_set_is_told_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    assert _problems(folder, f'{JOB}output: {{elasticsearch: {{url: "${{NO_SUCH}}"}}}}\n') == [
        "8: the environment variable NO_SUCH is not set"
    ]


# -- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: a-day", "name: a day", "1: name must be letters, digits and . _ -, up to 128 of them"),
        ("name: a-day", "nmae: a-day", "1: unknown key 'nmae'; did you mean name?"),
        ("name: a-day", "name: a-day\nname: again", "2: key 'name' stands twice"),
        ("aws_vpc_flow, path", "aws_vpc_flwo, path", "3: unknown format 'aws_vpc_flwo'; did you mean aws_vpc_flow?"),
        ("aws_vpc_flow, path", "kubernetes_pods, path", "3: 'kubernetes_pods' gives leases, not events"),
        ("kubernetes_pods, path", "aws_vpc_flow, path", "6: 'aws_vpc_flow' gives events, not leases"),
        ("format: aws_vpc_flow, ", "", "3: 'format' is missing"),
        ("format: aws_vpc_flow", "format: [aws_vpc_flow]", "3: events.0.format must be of type string"),
        ("scope: vpc-id", "scop: vpc-id", "3: unknown key 'scop'; did you mean scope?"),
        ("scope: vpc-id", "identity: {sandbox.id: a}", "3: aws_vpc_flow knows no 'identity'"),
        ("scope: vpc-1", "identity: {sanbox.id: a}", "6: unknown key 'sanbox.id'; did you mean sandbox.id?"),
        ("scope: vpc-1", "identity: {sandbox.id: metadata..name}", "6: 'metadata..name' is no path such as"),
        ("scope: vpc-1", "scope: 'metadata.labels['", "6: 'metadata.labels[' is no path such as"),
        ('"logs/*.log"', '"lgos/*.log"', "3: no file matches 'lgos/*.log'"),
        ("pods.json", "logs/", "6: 'logs/' is a folder: name its files, such as logs/*"),
        ("more.csv}", "more.csv}\nrules: [builtin, ./own]", "8: no such rule file or folder: './own'"),
        ("more.csv}", "more.csv}\nlists: {egress_allow: [10.0.0.0/33]}", "8: '10.0.0.0/33' does not appear"),
        ("more.csv}", "more.csv}\nlists:\n  internal:\n    - 10.0.0.0/8\n    - host", "11: 'host' does not appear"),
        ("more.csv}", "more.csv}\nlists: {mine: x}", "8: lists.mine must be of type array"),
        ("more.csv}", "more.csv}\nlists: {mi-ne: [x]}", "8: lists.mi-ne must be a name of letters, digits and _"),
        ("more.csv}", "more.csv}\nattribution: {tolerance: 2 s}", "8: attribution.tolerance must be a number of"),
        ("more.csv}", "more.csv}\nattribution: {wait: -1}", "8: attribution.wait must be a number of seconds, or"),
        ("more.csv}", "more.csv}\nattribution: {wait: .inf}", "8: inf is more than 30 days"),
        ("more.csv}", "more.csv}\nattribution: {wait: .nan}", "8: nan is more than 30 days"),
        ("more.csv}", "more.csv}\nattribution: {tolerance: 31d}", "8: 31d is more than 30 days"),
        ("more.csv}", "more.csv}\nattribution: {toleranz: 1s}", "8: unknown key 'toleranz'; did you mean tolerance?"),
        ("more.csv}", "more.csv}\noutput: {events: 'yes'}", "8: output.events must be of type boolean"),
        ("more.csv}", "more.csv}\noutput: {elasticsearch: {verify: true}}", "8: 'url' is missing"),
        ("more.csv}", "more.csv}\noutput: out", "8: output must be of type object"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(folder: Path, old: str, new: str, told: str) -> None:
    assert old in JOB
    problems = _problems(folder, JOB.replace(old, new))
    assert told in [problem[: len(told)] for problem in problems]
    assert len(problems) == 1 + ("prefix: A" in new)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1: a job file is one YAML mapping"),
        ("- a\n", "1: a job file is one YAML mapping"),
        (f"{JOB}---\n{JOB}", "1: a job file is one YAML mapping"),
        ("name: a\n", "1: 'events' is missing"),
        ("events: []\n", "1: events: [] should be non-empty"),
        ("events: 5\n", "1: events must be of type array"),
        ("events: [\n", "2: not valid YAML"),
    ],
)
def test_files_that_are_no_jobs(folder: Path, text: str, told: str) -> None:
    (problem,) = _problems(folder, text)
    assert problem.startswith(told)


def test_a_job_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(DefinitionError, match=r"none\.yml: cannot be read: No such file or directory"):
        load_job(folder / "none.yml")


def test_every_problem_of_the_job_its_rules_and_its_lists_is_told_at_once(folder: Path) -> None:
    (folder / "rules" / "bad.yml").write_text(RULE.replace("peer.ip", "peer.pi").replace("level: high", "level: hihg"))
    text = """\
nmae: x
events:
  - {format: aws_vpc_flwo, path: "none/*"}
  - {format: aws_vpc_flow, path: "logs/*.log", colums: {}}
  - {path: 5}
leases:
  - {format: kubernetes_pods, path: pods.json, identity: {job.id: "a[", sandbox.id: 5}}
rules: [./gone, ./rules]
lists: {egress_allow: [10.0.0.0/33], internal: 5, peers: [203.0.113.0/24]}
attribution: {tolerance: long}
output:
  directory: 5
  elasticsearch: {url: "${NO_SUCH}", api_key: hunter2, usr: x}
"""
    assert _problems(folder, text) == [
        "1: unknown key 'nmae'; did you mean name?",
        "3: no file matches 'none/*'",
        "3: unknown format 'aws_vpc_flwo'; did you mean aws_vpc_flow?",
        "4: unknown key 'colums'; did you mean columns?",
        "5: 'format' is missing",
        "5: events.2.path must be of type string",
        "7: 'a[' is no path such as metadata.labels[\"key\"]: stopped at character 2",
        "7: leases.0.identity.sandbox.id must be of type string",
        "8: no such rule file or folder: './gone'",
        "9: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 network",
        "9: lists.internal must be of type array",
        "10: attribution.tolerance must be a number of seconds, or text such as 500ms, 2s, 10m, 1h",
        "12: output.directory must be of type string",
        "13: secrets come from the environment only: write ${NAME} and set NAME",
        "13: the environment variable NO_SUCH is not set",
        "13: unknown key 'usr'; did you mean url?",
        "rules/bad.yml:3: level is 'hihg', not one of informational, low, medium, high, critical; did you mean high?",
        "rules/bad.yml:6: unknown field 'peer.pi'; did you mean peer.ip?",
    ]


def test_a_rule_may_name_the_lists_of_its_job_only(folder: Path) -> None:
    own = f"{JOB}rules: [./rules]\n"
    assert _problems(folder, own) == ["rules/own.yml:6: unknown list 'peers'"]
    assert _problems(folder, f"{own}lists: {{perrs: [x]}}\n") == [
        "rules/own.yml:6: unknown list 'peers'; did you mean perrs?"
    ]
    assert _problems(folder, f"{own}lists: {{peers: [203.0.113.9, everyone]}}\n") == [
        "9: 'everyone' does not appear to be an IPv4 or IPv6 network"
    ]
    (rule,) = _load(folder, f"{own}lists: {{peers: [203.0.113.9]}}\n").rules
    assert rule.lists == {"peers"}


def test_rules_for_log_sources_that_nobody_reads_are_off_whatever_they_name(folder: Path) -> None:
    text = RULE.replace("{product: agenttrail, category: network}", "{product: windows}").replace("peer.ip", "Image")
    (folder / "rules" / "own.yml").write_text(text)
    (rule,) = _load(folder, f"{JOB}rules: [./rules]\n").rules
    assert rule.off.startswith("log source {product: windows} is not known")


_PLAIN = st.none() | st.booleans() | st.integers(-(10**6), 10**12) | st.floats() | st.sampled_from(
    ["", "x", "aws_vpc_flow", "builtin", "10.0.0.0/8", "2s", "${HOME}", "logs/*.log", "..", "\x1b[2J", "metadata.name"]
)  # fmt: skip
_ANY = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "path", "url", "a"]), inner),
)
_KEYS = [
    ("name",), ("events",), ("events", 0), ("events", 0, "format"), ("events", 0, "path"), ("events", 0, "scope"),
    ("leases",), ("leases", 0, "identity"), ("leases", 0, "scope"), ("rules",), ("lists",), ("lists", "internal"),
    ("attribution",), ("attribution", "wait"), ("output",), ("output", "directory"), ("output", "elasticsearch"),
]  # fmt: skip


def _put(data: Any, place: tuple[Any, ...], value: Any) -> None:
    """Put a value at a place, where an earlier one has left the place."""
    for step in place[:-1]:
        data = data.setdefault(step, {}) if isinstance(data, dict) and isinstance(step, str) else data
        data = data[step] if isinstance(data, list) and data and isinstance(step, int) else data
    if isinstance(data, dict) or (isinstance(data, list) and data and isinstance(place[-1], int)):
        data[place[-1]] = value


@given(st.lists(st.tuples(st.sampled_from(_KEYS), _ANY), min_size=1, max_size=3))
def test_no_value_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[Any, Any]]) -> None:
    """Either it is a job, or its problems are told."""
    folder = tmp_path_factory.getbasetemp() / "edited"
    folder.mkdir(exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    for name in ("logs/a.log", "logs/ali.jsonl", "pods.json", "more.csv"):
        (folder / name).touch()
    data = yaml.safe_load(JOB)
    for place, value in edits:
        _put(data, place, value)
    try:
        job = _load(folder, yaml.safe_dump(data))
    except DefinitionError as error:
        told = str(error)
    else:
        told = job.name
    assert told
