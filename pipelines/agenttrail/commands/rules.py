"""``agenttrail rules``: check, test, list and explain rules, and what of ATT&CK they cover."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import printable
from agenttrail.commands.printing import print_json
from agenttrail.errors import DefinitionError, Problem, shortened

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Mapping

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule, RuleSet

_CELL, _LINE = 100, 2_000  # characters; JSON has them all


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
        help="rule files or folders; the rules that ship with the program by default, which 'builtin' names, too"
        + ("; or names of rules among them" if name == "explain" else ""),
    )
    parser.add_argument("--job", metavar="JOB.yml", help="a job file, whose lists the rules may use")
    if name not in {"check", "test"}:
        parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=action)


def _loaded(arguments: argparse.Namespace) -> tuple[RuleSet, dict[str, tuple[str, ...]]]:
    from agenttrail.detect.rules import load_all
    from agenttrail.lists import shipped_lists

    lists = shipped_lists()
    if arguments.job:
        from agenttrail.job_files import load_job

        lists = load_job(arguments.job).lists
    rules = load_all(arguments.paths or ["builtin"], lists if arguments.job or not arguments.paths else None)
    return rules, lists


def _check(arguments: argparse.Namespace) -> int:
    from agenttrail.yaml_files import suggest

    rules, lists = _loaded(arguments)
    sys.stdout.write(f"{_counted_rules(rules)}, no problem\n")
    for one in _by_name(rules):
        if one.off:
            _note(f"{one.path}: off: {one.off}")
    for rule in rules.rules:
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


def _counted_rules(rules: RuleSet) -> str:
    counted = _counted(len(rules.rules), "rule")
    return counted + (f", {_counted(len(rules.correlations), 'correlation')}" if rules.correlations else "")


def _note(text: str) -> None:
    sys.stdout.write(f"note: {printable(shortened(text, _LINE))}\n")


def _test(arguments: argparse.Namespace) -> int:
    from agenttrail.detect.correlation_tests import failing_correlation_tests
    from agenttrail.detect.rule_tests import failing_tests

    rules, lists = _loaded(arguments)
    problems = failing_tests(rules.rules, lists) + failing_correlation_tests(rules, lists)
    if problems:
        raise DefinitionError(problems)
    every = _by_name(rules)
    untested = [one.name for one in every if not one.tests]
    tests = _counted(sum(len(one.tests) for one in every), "test")
    sys.stdout.write(f"{_counted_rules(rules)}, {tests}, all pass\n")
    for name in untested:
        _note(f"{name} has no tests")
    return 0


def _by_name(rules: RuleSet) -> list[Rule | Correlation]:
    return sorted((*rules.rules, *rules.correlations), key=lambda one: (one.name, one.id))


def _rows(rules: RuleSet) -> list[dict[str, Any]]:
    from agenttrail.detect.rules import Rule

    return [
        {
            "name": one.name, "id": one.id, "level": one.level, "building_block": one.building_block,
            "title": one.title, "techniques": list(one.techniques),
            **(
                {"datasets": list(one.datasets), "lists": sorted(one.lists)}
                if isinstance(one, Rule)
                else {"type": one.type, "rules": list(one.rules)}
            ),
            "off": one.off,
        }
        for one in _by_name(rules)
    ]  # fmt: skip


def _list(arguments: argparse.Namespace) -> int:
    from agenttrail.tables import print_table

    rows = _rows(_loaded(arguments)[0])
    if arguments.json:
        print_json(rows, indent=True)
        return 0
    print_table(
        ("rule", "level", "techniques", "title"),
        [
            (
                row["name"],
                row["level"] + (" (block)" if row["building_block"] else ""),
                " ".join(row["techniques"]),
                shortened(row["title"], _CELL),
            )
            for row in rows
        ],
    )
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    words, arguments.paths = _names_and_paths(arguments.paths)
    rules, _ = _loaded(arguments)
    every = _by_name(rules)
    names = {one.id: one.name for one in every}
    _refuse_unknown(words, names.values())
    if arguments.json:
        rows = [
            {**row, "condition": _condition(one, names)}
            for row, one in zip(_rows(rules), every, strict=True)
            if not words or one.name in words
        ]
        print_json(rows, indent=True)
        return 0
    for one in every:
        if words and one.name not in words:
            continue
        parts = [
            f"{one.name} ({one.level}{', building block' if one.building_block else ''})",
            f"  {one.title}",
            f"  {' '.join(one.description.split())}",
            *_sight(one, names),
            f"  techniques: {', '.join(one.techniques) or 'none'}",
            *(f"  benign:     {text}" for text in one.falsepositives),
            *(f"  do:         {text}" for text in one.recommendation),
        ]
        sys.stdout.write("\n".join(printable(shortened(part, _LINE)) for part in parts) + "\n\n")
    return 0


def _names_and_paths(given: list[str]) -> tuple[list[str], list[str]]:
    """Return which words can only be names of rules, and the rest, which are files, folders or ``builtin``."""
    from pathlib import Path

    names = [word for word in given if word != "builtin" and not Path(word).exists()]
    return names, [word for word in given if word not in names]


def _refuse_unknown(words: list[str], names: Collection[str]) -> None:
    from agenttrail.yaml_files import suggest

    told = "no such rule file or folder, and no rule of this name"
    unknown = [Problem(word, 0, told, suggest(word, names)) for word in words if word not in names]
    if unknown:
        raise DefinitionError(unknown)


def _condition(one: Rule | Correlation, names: Mapping[str, str]) -> str:
    from agenttrail.detect.correlations import show_correlation
    from agenttrail.detect.expressions import show
    from agenttrail.detect.rules import Rule

    return show(one.condition) if isinstance(one, Rule) else show_correlation(one, names)


def _sight(one: Rule | Correlation, names: Mapping[str, str]) -> list[str]:
    """Return what a rule sees, as lines."""
    from agenttrail.detect.rules import Rule

    if isinstance(one, Rule):
        return [
            f"  sees:       {', '.join(one.datasets) or 'nothing: ' + one.off}",
            f"  condition:  {_condition(one, names)}",
            f"  lists:      {', '.join(sorted(one.lists)) or 'none'}",
        ]
    sees = ", ".join(names[rule] for rule in one.rules)
    return [
        f"  sees:       hits of {sees}" + (f" (off: {one.off})" if one.off else ""),
        f"  condition:  {_condition(one, names)}",
    ]


def _coverage(arguments: argparse.Namespace) -> int:
    from agenttrail.tables import print_table

    covered: dict[str, list[str]] = defaultdict(list)
    for rule in _by_name(_loaded(arguments)[0]):
        for technique in rule.techniques:
            covered[technique].append(rule.name)
    if arguments.json:
        print_json(dict(sorted(covered.items())), indent=True)
        return 0
    print_table(
        ("technique", "rules"), [(technique, ", ".join(sorted(names))) for technique, names in sorted(covered.items())]
    )
    return 0
