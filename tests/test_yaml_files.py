"""YAML that users write: what is ambiguous, explosive or endless is refused with its place, before it does harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agenttrail.errors import DefinitionError
from agenttrail.yaml_files import read_yaml

PROGRAM = Path(sys.executable).parent / "agenttrail"


def _problems(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DefinitionError) as caught:
        read_yaml(path)
    return str(caught.value).replace(f"{path}:", "").splitlines()


@pytest.mark.parametrize("command", [["run"], ["rules", "check"]], ids=" ".join)
@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 100_000, "a: " + "{a: " * 50_000, "- " * 100_000 + "x", "? " * 50_000 + "x",
     "name: ok\n---\n" + "[" * 5_000 + "]" * 5_000],
    ids=["lists", "mappings", "dashes", "keys", "second document"],
)  # fmt: skip
def test_deep_nesting_does_not_end_the_process(tmp_path: Path, command: list[str], text: str) -> None:
    path = tmp_path / "deep.yml"
    path.write_text(text)
    done = subprocess.run([PROGRAM, *command, path], capture_output=True, text=True, check=False, timeout=60)
    line = 1 + text.count("\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"agenttrail: {path}:{line}: nested more than 100 levels deep\n"


def test_a_hundred_levels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "nested.yml"
    path.write_text("[" * 100 + "]" * 100)
    (document,) = read_yaml(path)
    depth, value = 0, document.data
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    assert depth == 100
    assert _problems(path, "\n" + "[" * 101 + "]" * 101) == ["2: nested more than 100 levels deep"]


def test_nor_can_aliases_nest_deeper(tmp_path: Path) -> None:
    steps = "".join(f"a{at + 1}: &a{at + 1} [*a{at}]\n" for at in range(200))
    (problem,) = _problems(tmp_path / "x.yml", f"a0: &a0 [x]\n{steps}")
    assert problem.endswith("nested more than 100 levels deep")
    assert _problems(tmp_path / "x.yml", "a: &a [*a]\n") == ["1: nested more than 100 levels deep"]
    bomb = "".join(f"a{at + 1}: &a{at + 1} [{', '.join([f'*a{at}'] * 10)}]\n" for at in range(9))
    (problem,) = _problems(tmp_path / "x.yml", f"a0: &a0 [x]\n{bomb}")
    assert problem.endswith("aliases expand to too much")


def test_too_many_values_are_told_with_the_line_of_the_first_too_many(tmp_path: Path) -> None:
    assert _problems(tmp_path / "x.yml", "- x\n" * 200_001) == ["200000: more than 200,000 values"]


@pytest.mark.parametrize("text", ["1:30", "190:20:30.15", "1:2:3:4:5:6:7:8", "-1:30", "1:30:" + "59:" * 100_000 + "1"])
def test_numbers_to_base_60_are_refused_and_text_in_quotes_is_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    (problem,) = _problems(path, f"a: 1\nb: {text}\n")
    assert problem.startswith(f"2: {text[:20]}")
    assert problem.endswith("without quotes is a number to base 60 in YAML: put it in quotes, or write a plain number")
    assert len(problem) < 600
    path.write_text(f"b: '{text}'\n")
    assert read_yaml(path)[0].data == {"b": text}


def test_a_pipe_is_not_opened_and_a_device_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yml")
    os.mkfifo(tmp_path / "rules-pipe.yml")
    for arguments in (["run", tmp_path / "pipe.yml"], ["run", "/dev/zero"], ["rules", "check", tmp_path]):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot be read: no regular file, and reading it may never end" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_file_without_end_is_read_to_the_limit_only(tmp_path: Path) -> None:
    path = tmp_path / "large.yml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DefinitionError, match=r"large\.yml: larger than 4 MiB"):
        read_yaml(path)


def test_messages_leave_out_the_middle_of_what_is_long(tmp_path: Path) -> None:
    rule = tmp_path / "rule.yml"
    rule.write_text(
        "title: A rule\nid: 11111111-1111-4111-8111-111111111111\nlevel: " + "h" * 1_000_000 + "\n"
        "logsource: {product: agenttrail, category: network}\n"
        "detection: {a: {destination.domain|re: '" + "(" * 3_000_000 + "'}, condition: a}\n"
    )  # fmt: skip
    done = subprocess.run([PROGRAM, "rules", "check", rule], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    level, regex = done.stderr.splitlines()
    assert level.startswith(f"{rule}:3: level is 'hhhhhh")
    assert level.endswith("not one of informational, low, medium, high, critical")
    assert regex.startswith(f"{rule}:5: regular expression '((((")
    assert max(len(level), len(regex)) < 600 + len(str(rule))
