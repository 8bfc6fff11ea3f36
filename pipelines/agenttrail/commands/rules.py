"""``agenttrail rules``: check, test, list and explain rules, and what of ATT&CK they cover."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.text import printable
from agenttrail.errors import DefinitionError, Problem

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from agenttrail.detect.rules import Rule


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parsers."""
    parser = subparsers.add_parser("rules", help="check, test, list and explain rules")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, action, text in (
        ("check", _check, "find every problem of rules"),
        ("test", _test, "run the tests that rules carry"),
        ("list", _list, "list rules"),
        ("explain", _explain, "say what rules look for"),
        ("coverage", _coverage, "list the techniques that rules cover"),
    ):
        _add_action(actions, name, action, text)


def _add_action(actions: Any, name: str, action: Callable[[argparse.Namespace], int], text: str) -> None:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="rule files or folders; the rules that ship with the program by default",
    )
    parser.add_argument("--job", metavar="JOB.yml", help="a job file, whose lists the rules may use")
    if name not in {"check", "test"}:
        parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=action)


def _loaded(arguments: argparse.Namespace) -> tuple[list[Rule], dict[str, tuple[str, ...]]]:
    from agenttrail.detect.rules import load_rules
    from agenttrail.lists import shipped_lists

    lists = shipped_lists()
    if arguments.job:
        from agenttrail.job_files import load_job

        lists = load_job(arguments.job).lists
    rules = load_rules(arguments.paths or ["builtin"], lists if arguments.job or not arguments.paths else None)
    return rules, lists


def _check(arguments: argparse.Namespace) -> int:
    from agenttrail.yaml_files import suggest

    rules, lists = _loaded(arguments)
    sys.stdout.write(f"{_counted(len(rules), 'rule')}, no problem\n")
    for rule in rules:
        if rule.off:
            _note(f"{rule.path}: off: {rule.off}")
        for name in sorted(rule.lists - set(lists)):
            _note(
                str(
                    Problem(
                        rule.path, 0, f"a job must give the list {name!r}, which does not ship", suggest(name, lists)
                    )
                )
            )
    return 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _note(text: str) -> None:
    sys.stdout.write(f"note: {printable(text)}\n")


def _test(arguments: argparse.Namespace) -> int:
    from agenttrail.detect.rule_tests import failing_tests

    rules, lists = _loaded(arguments)
    problems = failing_tests(rules, lists)
    if problems:
        raise DefinitionError(problems)
    untested = [rule.name for rule in rules if not rule.tests]
    tests = _counted(sum(len(rule.tests) for rule in rules), "test")
    sys.stdout.write(f"{_counted(len(rules), 'rule')}, {tests}, all pass\n")
    for name in untested:
        _note(f"{name} has no tests")
    return 0


def _rows(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    return [
        {
            "name": rule.name, "id": rule.id, "level": rule.level, "building_block": rule.building_block,
            "title": rule.title,
            "techniques": list(rule.techniques), "datasets": list(rule.datasets), "lists": sorted(rule.lists),
            "off": rule.off,
        }
        for rule in sorted(rules, key=lambda rule: rule.name)
    ]  # fmt: skip


def _list(arguments: argparse.Namespace) -> int:
    from agenttrail.tables import print_table

    rows = _rows(_loaded(arguments)[0])
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    print_table(
        ("rule", "level", "techniques", "title"),
        [
            (
                row["name"],
                row["level"] + (" (block)" if row["building_block"] else ""),
                " ".join(row["techniques"]),
                row["title"],
            )
            for row in rows
        ],
    )
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from agenttrail.detect.expressions import show

    rules, _ = _loaded(arguments)
    if arguments.json:
        rows = [
            {**row, "condition": show(rule.condition)}
            for row, rule in zip(_rows(rules), sorted(rules, key=lambda rule: rule.name), strict=True)
        ]
        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    for rule in sorted(rules, key=lambda rule: rule.name):
        parts = [
            f"{rule.name} ({rule.level}{', building block' if rule.building_block else ''})",
            f"  {rule.title}",
            f"  {' '.join(rule.description.split())}",
            f"  sees:       {', '.join(rule.datasets) or 'nothing: ' + rule.off}",
            f"  condition:  {show(rule.condition)}",
            f"  lists:      {', '.join(sorted(rule.lists)) or 'none'}",
            f"  techniques: {', '.join(rule.techniques) or 'none'}",
            *(f"  benign:     {text}" for text in rule.falsepositives),
            *(f"  do:         {text}" for text in rule.recommendation),
        ]
        sys.stdout.write("\n".join(map(printable, parts)) + "\n\n")
    return 0


def _coverage(arguments: argparse.Namespace) -> int:
    from agenttrail.tables import print_table

    covered: dict[str, list[str]] = defaultdict(list)
    for rule in _loaded(arguments)[0]:
        for technique in rule.techniques:
            covered[technique].append(rule.name)
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(covered, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        return 0
    print_table(
        ("technique", "rules"), [(technique, ", ".join(sorted(names))) for technique, names in sorted(covered.items())]
    )
    return 0
