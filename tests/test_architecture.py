"""The houses keep to their rooms: what may import what, and what stands nowhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "pipelines"
MIDDLE = (
    "formats",
    "leases",
    "trajectories",
    "attribute",
    "conversations",
    "detect",
    "rollups",
    "timeline",
    "incidents",
)
"""Pure packages that meet as batches only."""
BELOW = (
    "columns", "schema", "errors", "resources", "parsing", "flows", "metadata", "paths", "lists", "documents",
    "entities", "seams", "yaml_files", "accounting",
)  # fmt: skip
"""What these may lean on, and is as pure."""
TOGETHER = ("attribute_named", "coverage", "gathering", "casebook")
"""What brings them together, as pure: once per shard, and whenever a stream is asked."""
PURE = (*MIDDLE, *BELOW, *TOGETHER)
PURE_LIBRARIES = {"jsonschema", "msgspec", "numpy", "orjson", "pyarrow", "sigma", "yaml"}
REGEX_BY_HAND = {
    "detect/sigma.py": "re.escape alone, on the text of rules; the pattern goes to RE2",
    "paths.py": "paths of job files, no log content",
}
"""Pure modules that may import ``re``, which can be made to hang, and why."""


class Imported(NamedTuple):
    """One import statement's module and its line."""

    module: str
    line: int


def _modules(*rooms: str) -> list[Path]:
    """Return the files of some rooms of the package, of all without names."""
    package = SOURCE / "agenttrail"
    if not rooms:
        return sorted(package.rglob("*.py"))
    found = [
        [package / f"{room}.py"] if (package / f"{room}.py").exists() else (package / room).rglob("*.py")
        for room in rooms
    ]
    return sorted(path for paths in found for path in paths)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> Iterator[Imported]:
    """Yield all imports of a file, also those inside functions and for type checkers only."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (Imported(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield Imported(below if _is_module(below) else str(node.module), node.lineno)


def _is_module(name: str) -> bool:
    place = SOURCE.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def _room(module: str) -> str:
    return [*module.split("."), ""][1]


def _place(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(SOURCE / 'agenttrail')}" + (f":{line}" if line else "")


def test_every_room_is_there() -> None:
    """Else the tests below would look at nothing."""
    for room in PURE:
        assert _modules(room), room
    seen = {found.module for path in _modules("transforms", "sinks") for found in _imports(path)}
    assert {"apache_beam", "elasticsearch", "agenttrail.detect.plan", "agenttrail.incidents"} <= seen


def test_pure_packages_know_nothing_of_the_machinery() -> None:
    """No Beam, no client of a store, no command line, none of our modules that have them."""
    wrong = []
    for path in _modules(*PURE):
        for module, line in _imports(path):
            library = module.partition(".")[0]
            fine = (
                _room(module) in PURE
                if library == "agenttrail"
                else library in PURE_LIBRARIES | sys.stdlib_module_names
            )
            wrong += [] if fine else [f"{_place(path, line)}: {module}"]
    assert wrong == []


def test_pure_packages_load_without_the_machinery() -> None:
    """Also through what they import."""
    names = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in _modules(*PURE)
    ]
    heavy = ("apache_beam", "elasticsearch", "elastic_transport", "grpc", "rich")
    code = [
        "import sys, importlib",
        f"for name in {names}: importlib.import_module(name)",
        f"print([name for name in {heavy} if name in sys.modules])",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True, cwd=SOURCE
    )
    assert done.stdout.strip() == "[]"


def test_packages_of_the_middle_meet_as_batches_only() -> None:
    wrong = [
        f"{_place(path, line)}: {module}"
        for own in MIDDLE
        for path in _modules(own)
        for module, line in _imports(path)
        if _room(module) in MIDDLE and module.startswith("agenttrail.") and _room(module) != own
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("columns", (*MIDDLE, "parsing", "flows", "entities", "metadata")),
        ("schema", (*MIDDLE, "columns")),
        ("errors", (*MIDDLE, "columns", "schema")),
        ("transforms", ("jobs", "job_files", "commands", "cli", "sinks", "sources")),
        ("sources", ("sinks", "jobs", "job_files", "commands", "cli", "transforms")),
        ("sinks", ("report", "sources", "jobs", "job_files", "commands", "cli", "transforms")),
        ("report", ("jobs", "job_files", "commands", "cli", "transforms", "sources")),
        ("jobs", ("commands", "cli", "report", "streams")),
        ("streams", ("commands", "cli", "report")),
        ("job_files", ("jobs", "commands", "cli")),
    ],
)
def test_imports_go_one_way(room: str, never: tuple[str, ...]) -> None:
    wrong = [
        f"{_place(path, line)}: {module}"
        for path in _modules(room)
        for module, line in _imports(path)
        if module.startswith("agenttrail.") and _room(module) in never
    ]
    assert wrong == []


def test_nothing_but_its_commands_knows_the_simulator() -> None:
    """And the simulator knows nothing of what is to find it out."""
    for path in _modules():
        inside = path.is_relative_to(SOURCE / "agenttrail" / "simulate")
        for module, line in _imports(path):
            if _room(module) == "simulate":
                assert inside or _place(path) in ("commands/simulate.py", "commands/demo.py"), _place(path, line)
            elif inside:
                assert not module.startswith("agenttrail."), _place(path, line)


def test_every_module_is_about_one_thing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base", "core", "tools"}
    parts = {part for path in _modules() for part in (*path.relative_to(SOURCE).parts[:-1], path.stem)}
    assert len(parts) > 50
    assert parts & vague == set()


def test_log_content_meets_no_regular_expression_that_can_hang() -> None:
    found = {_place(path) for path in _modules(*PURE) for module, _ in _imports(path) if module in ("re", "regex")}
    assert found == set(REGEX_BY_HAND)
    for node in ast.walk(_tree(SOURCE / "agenttrail" / "detect" / "sigma.py")):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re":
            assert node.attr == "escape"


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a file with what they call, as it is written."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_yaml_is_read_by_safe_loaders_only() -> None:
    """As plain data: ``compose`` makes nodes and no objects, all other ways name their loader."""
    ways, seen = {"yaml.load", "yaml.load_all", "yaml.compose", "yaml.compose_all"}, set()
    for path in _modules():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("yaml."):
                name = node.attr
                assert not any(word in name for word in ("unsafe", "full", "Unsafe", "Full")), f"{path}:{node.lineno}"
                assert name not in ("Loader", "CLoader", "BaseLoader"), f"{path}:{node.lineno}"
        for called, call in _calls(path):
            if called in ways:
                (loader,) = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "Loader"]
                assert "SafeLoader" in loader or loader == "_Loader", f"{path}:{call.lineno}"
                seen.add(called)
    assert {"yaml.load", "yaml.compose_all"} <= seen
    from agenttrail import yaml_files

    assert "Safe" in yaml_files._Loader.__name__  # noqa: SLF001 - named at the top of its module


def test_results_depend_on_no_clock_and_no_chance() -> None:
    """Event time everywhere: pure packages ask neither what time it is nor a die."""
    clocks = ("now", "utcnow", "today", "time", "time_ns", "monotonic", "perf_counter")
    wrong = []
    for path in _modules(*PURE):
        wrong += [
            f"{_place(path, line)}: {m}" for m, line in _imports(path) if m in ("random", "secrets", "uuid", "time")
        ]
        for called, call in _calls(path):
            owner, _, name = called.rpartition(".")
            if (name in clocks and owner.rpartition(".")[2] in ("datetime", "date", "time")) or called == "hash":
                wrong.append(f"{_place(path, call.lineno)}: {called}")
    assert wrong == []


def test_extensions_stand_in_a_plain_dict() -> None:
    """Every file of ``formats`` but ``__init__`` is one format, listed there by its own name."""
    from agenttrail.formats import FORMATS

    files = {path.stem for path in _modules("formats")} - {"__init__"}
    assert set(FORMATS) == files
    assert all(name == format_.name for name, format_ in FORMATS.items())
