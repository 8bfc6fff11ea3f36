"""`make bench`: the same work with the same answers, by agenttrail, DuckDB tuned by hand, and naive Beam.

Costs are slopes: CPU seconds of a large input less those of a small one, by row, so that start-up falls out.
All of one table is measured in one run, since machines are shared and noisy; ratios tell more than figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.benchmarks.generate import BROKEN_EVERY, generate  # noqa: E402 - needs the path
from tests.benchmarks.measure import Cost, measure  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).resolve().with_name("RESULTS.md")
ACCEPTED = "<!-- made by make acceptance: begin -->"
SEED = 7
COLUMNS, DUCKDB, NAIVE = (("-m", f"tests.benchmarks.{name}") for name in ("columns_job", "duckdb_job", "naive_beam"))


@dataclass(frozen=True)
class Sizes:
    """Lines of the small and the large input of each measurement."""

    small: int = 5_000_000
    large: int = 20_000_000
    naive_small: int = 50_000
    naive_large: int = 200_000
    json_small: int = 400_000
    json_large: int = 1_600_000
    conversations: int = 5_000_000
    groups: int = 100_000

    @property
    def disk(self) -> int:
        """Bytes of all inputs and outputs, roughly."""
        aws = self.small + self.large + self.naive_small + self.naive_large
        return 140 * aws + 1_500 * (self.json_small + self.json_large)


@dataclass(frozen=True)
class Slope:
    """What a contestant costs."""

    name: str
    small: Cost
    large: Cost
    rows: tuple[int, int]

    @property
    def micros(self) -> float:
        """CPU microseconds a row."""
        return (self.large.cpu - self.small.cpu) / (self.rows[1] - self.rows[0]) * 1e6

    @property
    def speed(self) -> float:
        """Rows, in millions, by CPU second."""
        return 1 / self.micros

    @property
    def start_up(self) -> float:
        """CPU seconds that do not depend on the rows."""
        return self.small.cpu - self.micros * self.rows[0] / 1e6


@dataclass(frozen=True)
class Results:
    """All that was measured.

    Attributes:
        ours: agenttrail at the contest.
        full: DuckDB at the same work.
        lazy: DuckDB where it leaves out what no answer needs.
        naive: Beam with a dict per line.
        rules: agenttrail without the windowed sums.
        whole: the whole job.
        clean: Alibaba's JSON.
        mixed: the same with broken lines and numbers as text.
        correlations: every type of correlation over many conversations.
        start_up: CPU seconds of `agenttrail run` on a thousand lines.
        mix: what the input is made of.
        books: ``run.json`` of the whole job at the large size.
    """

    ours: Slope
    full: Slope
    lazy: Slope
    naive: Slope
    rules: Slope
    whole: Slope
    clean: Slope
    mixed: Slope
    correlations: Cost
    start_up: float
    mix: dict[str, float]
    books: dict[str, Any]

    @property
    def linear(self) -> float:
        """Cost a row of the large input over that of the small one, beyond what a thousand lines cost."""
        costs = zip((self.whole.small, self.whole.large), self.whole.rows, strict=True)
        small, large = ((cost.cpu - self.start_up) / rows for cost, rows in costs)
        return large / small


class Bench:
    """One run of all measurements, in one folder."""

    def __init__(self, folder: Path, sizes: Sizes, repeat: int = 1) -> None:
        """Measure in ``folder``, each thing ``repeat`` times."""
        self.folder, self.sizes, self.repeat = folder, sizes, repeat

    def input(self, log: str, lines: int, a_day: int) -> Path:
        """Return the job file of an input, generated if it is not there yet."""
        folder = self.folder / f"{log}-{lines}"
        if not (folder / "job.yml").exists():
            generate(folder, log, lines, a_day, SEED)
        return folder / "job.yml"

    def run(self, *command: str) -> Cost:
        """Measure one command of this environment: its least CPU seconds and its most memory."""
        _say(f"  {' '.join(command[1:])}")
        costs = [measure([sys.executable, *command], self.folder) for _ in range(self.repeat)]
        return replace(min(costs, key=lambda cost: cost.cpu), memory=max(cost.memory for cost in costs))

    def slope(self, name: str, jobs: Sequence[Path], rows: tuple[int, int], *command: str) -> Slope:
        """Measure a contestant on a small and a large input."""
        _say(name)
        small, large = (self.run(*command, str(job)) for job in jobs)
        return Slope(name, small, large, rows)

    def contest(self) -> tuple[Slope, Slope, Slope, Slope]:
        """Measure agenttrail, DuckDB in full and lazy, and naive Beam; all must answer alike."""
        sizes = self.sizes
        rows, few = (sizes.small, sizes.large), (sizes.naive_small, sizes.naive_large)
        jobs, little = ([self.input("aws", lines, sizes.large) for lines in pair] for pair in (rows, few))
        ours = self.slope("agenttrail", jobs, rows, *COLUMNS)
        full = self.slope("DuckDB, every record attributed", jobs, rows, *DUCKDB, "--in-full")
        lazy = self.slope("DuckDB, only what these answers need", jobs, rows, *DUCKDB)
        compare([ours, full, lazy])
        naive = self.slope("naive Beam", little, few, *NAIVE)
        compare([naive, self.slope("agenttrail on naive Beam's input", little, few, *COLUMNS)])
        return ours, full, lazy, naive

    def whole_job(self) -> tuple[Slope, dict[str, Any]]:
        """Measure `agenttrail run` with the rules that ship, and return its books at the large size."""
        rows = self.sizes.small, self.sizes.large
        paths = []
        for job in (self.input("aws", lines, self.sizes.large) for lines in rows):
            text = yaml.safe_load(job.read_text(encoding="utf-8")) | {"rules": ["builtin"]}
            paths.append(job.with_name("whole.yml"))
            paths[-1].write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        slope = self.slope("the whole job", paths, rows, "-m", "agenttrail", "run", "--json")
        books = dict(json.loads(slope.large.output))
        if books["total"]["events"] != rows[1]:
            msg = f"the whole job read {books['total']['events']} of {rows[1]} lines"
            raise RuntimeError(msg)
        return slope, books | {"events_in_findings": events_in_findings(paths[-1].parent / "out")}

    def json(self, log: str, what: str, broken_every: int = 0) -> Slope:
        """Measure parse, attribute and rules on JSON, of which one line in ``broken_every`` cannot be read."""
        sizes = self.sizes
        rows = sizes.json_small, sizes.json_large
        jobs = [self.input(log, lines, sizes.json_large) for lines in rows]
        slope = self.slope(f"Alibaba JSON, {what}", jobs, rows, *COLUMNS, "--no-aggregates")
        for cost, lines in zip((slope.small, slope.large), rows, strict=True):
            found = answers(cost)
            dead = lines // broken_every if broken_every else 0
            if (found["rows"], found["dead"]) != (lines - dead, dead):
                msg = f"{slope.name}: {found['rows']} rows and {found['dead']} dead letters of {lines} lines"
                raise RuntimeError(msg)
        return slope

    def correlations(self) -> Cost:
        """Measure the four types of correlation."""
        sizes = self.sizes
        asked = ("--conversations", str(sizes.conversations), "--groups", str(sizes.groups))
        _say("correlations")
        cost = self.run("-m", "tests.benchmarks.correlations_job", *asked)
        if not all(answers(cost)["findings"].values()):
            msg = f"a correlation found nothing: {cost.output}"
            raise RuntimeError(msg)
        return cost

    def all(self) -> Results:
        """Measure everything."""
        rows = self.sizes.small, self.sizes.large
        ours, full, lazy, naive = self.contest()
        jobs = [self.input("aws", lines, self.sizes.large) for lines in rows]
        rules = self.slope("parse → attribute → row rules", jobs, rows, *COLUMNS, "--no-aggregates")
        whole, books = self.whole_job()
        mix = check_mix(answers(lazy.large), books)
        clean = self.json("alibaba", "clean lines")
        mixed = self.json("alibaba-mixed", "one broken line in 5,000, numbers mixed as text", BROKEN_EVERY)
        correlations = self.correlations()
        start_up = self.run("-m", "agenttrail", "run", str(self.input("aws", 1_000, 1_000))).cpu
        return Results(ours, full, lazy, naive, rules, whole, clean, mixed, correlations, start_up, mix, books)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def answers(cost: Cost) -> dict[str, Any]:
    """Return what a contestant found."""
    return dict(json.loads(cost.output.strip().splitlines()[-1]))


def compare(slopes: Sequence[Slope]) -> None:
    """Check that contestants gave equal answers to equal inputs.

    Raises:
        RuntimeError: they did not; their figures mean nothing then.
    """
    for size in ("small", "large"):
        found = {slope.name: answers(getattr(slope, size)) for slope in slopes}
        for other in found.values():
            other.pop("prefiltered", None)  # what DuckDB's prefilter lets through is no answer
        first = next(iter(found.values()))
        wrong = [name for name, other in found.items() if other != first]
        if wrong:
            msg = f"{', '.join(wrong)}: other answers than {slopes[0].name} on the {size} input: {found}"
            raise RuntimeError(msg)


MIX = {
    "unlisted": (0.045, 0.055),
    "prefiltered": (0.025, 0.035),
    "in findings of medium and above": (1e-9, 0.0001),
    "incidents": (1, 200),
}
"""Least and most of what the input must hold."""


def check_mix(found: dict[str, Any], books: dict[str, Any]) -> dict[str, float]:
    """Return the shares that make the mix, having checked them.

    Raises:
        RuntimeError: the input is not what the figures are said to be for.
    """
    rows = found["rows"]
    mix = {
        "unlisted": found["unlisted"] / rows,
        "prefiltered": found["prefiltered"] / rows,
        "in findings of medium and above": books["events_in_findings"] / rows,
        "incidents": float(books["incidents"]),
    }
    wrong = [f"{name}: {mix[name]}" for name, (least, most) in MIX.items() if not least <= mix[name] <= most]
    if wrong:
        msg = f"the input is another mix than it should be: {wrong}"
        raise RuntimeError(msg)
    return mix


MIX_RULES = {
    "impact/mining-verdict", "credential-access/instance-metadata-service", "exfiltration/volume-to-unlisted-peer",
    "command-and-control/ssh-to-unlisted-peer",
}  # fmt: skip
"""Rules of medium and above that the mix is told by: those that came later look at the same input."""


def events_in_findings(output: Path) -> int:
    """Return the events of the findings of ``MIX_RULES``."""
    with (output / "findings.ndjson").open(encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        return sum(one["event.count"] for one in found if one["rule.name"] in MIX_RULES)


# -- what is told


def report(command: str, sizes: Sizes, found: Results) -> str:
    """Return the results as Markdown."""
    mix, books = found.mix, found.books
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in books["seconds"].items())
    return f"""# Results of `make bench`

Made by `{command}` on {_machine()}.
CPU seconds and memory (PSS) are those of whole process trees; costs are slopes between {sizes.small:,} and
{sizes.large:,} lines, so start-up is not in them.  "Others" is the share of the machine's CPU that other programs took
meanwhile: the busier they are, the more CPU seconds the same work takes.  Compare within one table.

## The same work, the same answers

Parse → attribute → 30 row rules → two windowed sums, on `aws_vpc_flow`.  The answers were compared and are equal: rows
by attribution status, hits of every rule, number, totals and checksums of all sums.

{_table([found.ours, found.full, found.lazy, found.naive], found.ours)}

- DuckDB runs on one thread, which costs it the fewest CPU seconds.  "Every record attributed" is the equal work: each
  event has its ends, peer, direction and holder before anything is asked, as ours have.  "Only what these answers need"
  is the best plan found for these questions alone: most records get no more than a holder.
- Naive Beam had {sizes.naive_small:,} and {sizes.naive_large:,} lines of the same day: more would take it hours.

## agenttrail alone

{_table([found.rules, found.whole, found.clean, found.mixed], None)}

- The whole job is `agenttrail run` with the rules that ship and files as output.  Its input: {mix["unlisted"]:.1%} of
  rows with an unlisted peer, {mix["prefiltered"]:.1%} that a prefilter of the 30 rules lets through,
  {mix["in findings of medium and above"]:.4%} in findings of the first rules of medium and above; {books["findings"]:,}
  findings, {books["incidents"]} incidents.
- Linear: at {sizes.large:,} lines the whole job costs {found.linear:.2f} times as much a row as at {sizes.small:,},
  start-up left out.
- Start-up: `agenttrail run` on a thousand lines takes {found.start_up:.1f} CPU seconds.
- CPU seconds by step at {sizes.large:,} lines, by the books of the run: {steps}.

## Correlations

{sizes.conversations:,} conversations of two rules in {sizes.groups:,} groups by name, over a day, in windows of half an
hour; grouping is in the figures.  At most {found.correlations.memory / 1e9:.2f} GB, of which the input is a part.

{_correlations(found.correlations)}

## Targets

{_targets(found)}
"""


def _correlations(cost: Cost) -> str:
    seconds, findings = (answers(cost)[name] for name in ("seconds", "findings"))
    rows = [f"| `{type_}` | {seconds[type_]:.2f} | {findings[type_]:,} |" for type_ in seconds]
    return "\n".join(["| type | CPU seconds | findings |", "|---|---|---|", *rows])


def _targets(found: Results) -> str:
    """Return a table of what was asked for and what was measured."""
    of_ours = (found.ours, found.rules, found.whole, found.clean, found.mixed)
    memory = [max(getattr(one, size).memory for one in of_ours) / 1e9 for size in ("small", "large")]
    lines = [
        ("parse → attribute → row rules, M rows / CPU-s", "≥", 1.0, found.rules.speed),
        ("the whole job with everything on, M rows / CPU-s", "≥", 0.6, found.whole.speed),
        ("times DuckDB, every record attributed", "≥", 1.5, found.full.micros / found.ours.micros),
        ("times naive Beam", "≥", 25.0, found.naive.micros / found.ours.micros),
        ("Alibaba JSON, clean lines, M rows / CPU-s", "≥", 0.2, found.clean.speed),
        ("Alibaba JSON, broken lines and numbers as text, M rows / CPU-s", "≥", 0.1, found.mixed.speed),
        ("costliest type of correlation, CPU-s", "≤", 5.0, max(answers(found.correlations)["seconds"].values())),
        ("cost a row, large over small", "≤", 1.1, found.linear),
        ("peak GB, small", "≤", 1.0, memory[0]),
        ("peak GB, large", "≤", 2.0, memory[1]),
        ("start-up, CPU-s", "≤", 5.0, found.start_up),
    ]
    rows = [
        f"| {name} | {sign} {bound:g} | {value:.2f} | {'yes' if (value >= bound) == (sign == '≥') else '**no**'} |"
        for name, sign, bound, value in lines
    ]
    return "\n".join(["| what | asked for | measured | met |", "|---|---|---|---|", *rows])


def _table(slopes: Sequence[Slope], ours: Slope | None) -> str:
    lines = [
        "| what | M rows / CPU-s | µs a row | costs times ours | start-up CPU-s | peak MB, small / large | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for slope in slopes:
        ratio = f"{slope.micros / ours.micros:.1f}" if ours and slope is not ours else ""
        memory = f"{slope.small.memory / 1e6:.0f} / {slope.large.memory / 1e6:.0f}"
        cells = (slope.name, f"{slope.speed:.3f}", f"{slope.micros:.2f}", ratio, f"{slope.start_up:.1f}", memory)
        lines.append(f"| {' | '.join(cells)} | {slope.large.others:.0%} |")
    return "\n".join(lines)


def _machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    cores = f"{os.cpu_count()} cores ({model or platform.machine()})"
    return f"{cores}, {memory / 1e6:.0f} GB, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--repeat", type=int, default=1, help="measure each thing so often, and take the least CPU")
    parser.add_argument("--keep", type=Path, help="generate the input here and leave it for the next time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    sizes = Sizes(**{name: getattr(given, name) for name in vars(Sizes())})
    folder = (given.keep or Path(tempfile.mkdtemp(prefix="agenttrail-bench-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = given.results.absolute()
    os.chdir(ROOT)  # the contestants are modules of the checkout
    try:
        free = shutil.disk_usage(folder).free
        if not given.keep and free < sizes.disk:
            parser.error(f"the input takes {sizes.disk / 1e9:.1f} GB, of which there are {free / 1e9:.1f}: set TMPDIR")
        text = report(_command(given, sizes), sizes, Bench(folder, sizes, given.repeat).all())
    finally:
        if not given.keep:
            shutil.rmtree(folder)
    # what make acceptance wrote below stays
    _, mark, accepted = results.read_text(encoding="utf-8").partition(ACCEPTED) if results.exists() else ("", "", "")
    results.write_text(f"{text}\n{mark}{accepted}" if mark else text, encoding="utf-8")
    sys.stdout.write(text)


def _command(given: argparse.Namespace, sizes: Sizes) -> str:
    """Return the command that makes these results, without paths of this machine."""
    values = {**vars(sizes), "repeat": given.repeat}
    usual = {**vars(Sizes()), "repeat": 1}
    flags = [f"--{name.replace('_', '-')} {value}" for name, value in values.items() if value != usual[name]]
    return " ".join([".venv/bin/python tests/benchmarks/bench.py", *flags]) if flags else "make bench"


if __name__ == "__main__":
    main()
