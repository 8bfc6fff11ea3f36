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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.benchmarks.generate import generate  # noqa: E402 - needs the path
from tests.benchmarks.measure import Cost, measure  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).resolve().with_name("RESULTS.md")
SEED = 7


@dataclass(frozen=True)
class Sizes:
    """Lines of the small and the large input of each measurement."""

    small: int = 5_000_000
    large: int = 20_000_000
    naive_small: int = 50_000
    naive_large: int = 200_000
    json_small: int = 400_000
    json_large: int = 1_600_000


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


class Bench:
    """One run of all measurements, in one folder."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        """Measure in ``folder``."""
        self.folder, self.sizes = folder, sizes

    def input(self, log: str, lines: int, a_day: int) -> Path:
        """Return the job file of an input, generated if it is not there yet."""
        folder = self.folder / f"{log}-{lines}"
        if not (folder / "job.yml").exists():
            generate(folder, log, lines, a_day, SEED)
        return folder / "job.yml"

    def run(self, *command: str) -> Cost:
        """Measure one command of this environment."""
        _say(f"  {' '.join(command[-3:])}")
        return measure([sys.executable, *command], self.folder)

    def slope(self, name: str, jobs: Sequence[Path], rows: tuple[int, int], *command: str) -> Slope:
        """Measure a contestant on a small and a large input."""
        _say(name)
        small, large = (self.run(*command, str(job)) for job in jobs)
        return Slope(name, small, large, rows)

    def whole_job(self, jobs: Sequence[Path]) -> tuple[Slope, list[dict[str, Any]]]:
        """Measure `agenttrail run` with the rules that ship, and return its books."""
        paths = []
        for job in jobs:
            text = yaml.safe_load(job.read_text(encoding="utf-8")) | {"rules": ["builtin"]}
            paths.append(job.with_name("whole.yml"))
            paths[-1].write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        slope = self.slope(
            "the whole job", paths, (self.sizes.small, self.sizes.large), "-m", "agenttrail", "run", "--json"
        )
        return slope, [json.loads(cost.output) for cost in (slope.small, slope.large)]

    def start_up(self) -> float:
        """Return the CPU seconds of `agenttrail run` on a thousand lines."""
        job = self.input("aws", 1_000, 1_000)
        return self.run("-m", "agenttrail", "run", str(job)).cpu


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
        first = next(iter(found.values()))
        wrong = [name for name, other in found.items() if other != first]
        if wrong:
            msg = f"{', '.join(wrong)}: other answers than {slopes[0].name} on the {size} input: {found}"
            raise RuntimeError(msg)


def check_mix(found: dict[str, Any], books: dict[str, Any]) -> dict[str, float]:
    """Return the shares that make the mix, having checked them.

    Raises:
        RuntimeError: the input is not what the figures are said to be for.
    """
    rows = found["rows"]
    shares = {
        "unlisted": found["unlisted"] / rows,
        "hits": sum(found["hits"].values()) / rows,
        "in findings of medium and above": books["events_in_findings"] / rows,
        "incidents": float(books["incidents"]),
    }
    bounds = {
        "unlisted": (0.045, 0.055),
        "hits": (0.01, 0.04),
        "in findings of medium and above": (0.0, 0.0001),
        "incidents": (1, 200),
    }
    wrong = [f"{name}: {shares[name]}" for name, (least, most) in bounds.items() if not least <= shares[name] <= most]
    if wrong:
        msg = f"the input is another mix than it should be: {wrong}"
        raise RuntimeError(msg)
    return shares


def events_in_findings(output: Path) -> int:
    """Return the events of the findings of medium severity and above."""
    with (output / "findings.ndjson").open(encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        return sum(one["event.count"] for one in found if one["finding.severity"] not in {"low", "informational"})


def bench(folder: Path, sizes: Sizes) -> str:
    """Measure everything; return the results as Markdown."""
    it = Bench(folder, sizes)
    rows = sizes.small, sizes.large
    jobs = [it.input("aws", lines, sizes.large) for lines in rows]
    columns = ("-m", "tests.benchmarks.columns_job")
    ours = it.slope("agenttrail", jobs, rows, *columns)
    duckdb = it.slope("DuckDB, tuned by hand", jobs, rows, "-m", "tests.benchmarks.duckdb_job")
    compare([ours, duckdb])
    few = sizes.naive_small, sizes.naive_large
    little = [it.input("aws", lines, sizes.large) for lines in few]
    naive = it.slope("naive Beam", little, few, "-m", "tests.benchmarks.naive_beam")
    compare([naive, it.slope("agenttrail on naive Beam's input", little, few, *columns)])
    rules = it.slope("agenttrail, parse → attribute → rules", jobs, rows, *columns, "--no-aggregates")
    whole, books = it.whole_job(jobs)
    books[1]["events_in_findings"] = events_in_findings(jobs[1].parent / "out")
    shares = check_mix(answers(ours.large), books[1])
    texts = sizes.json_small, sizes.json_large
    json_slopes = [
        it.slope(
            f"Alibaba JSON, {what}",
            [it.input(log, lines, sizes.json_large) for lines in texts],
            texts,
            *columns,
            "--no-aggregates",
        )
        for log, what in (("alibaba", "clean"), ("alibaba-mixed", "one broken line in 5,000 and numbers as text"))
    ]
    return report(sizes, [ours, duckdb, naive], [rules, whole, *json_slopes], shares, books, it.start_up())


def report(
    sizes: Sizes,
    contest: list[Slope],
    others: list[Slope],
    shares: dict[str, float],
    books: list[dict[str, Any]],
    start_up: float,
) -> str:
    """Return the results as Markdown."""
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in books[1]["seconds"].items())
    return f"""# Results of `make bench`

Made by `make bench` (sizes {sizes.small:,} and {sizes.large:,} lines) on {_machine()}.
CPU seconds and memory are those of whole process trees; costs are slopes between the small and the large input, so
start-up is not in them.  Machines are shared and noisy: compare within one table.

## The same work, the same answers

Parse → attribute → 30 row rules → two windowed sums, on `aws_vpc_flow`.  The answers were compared and are equal:
attributed rows, hits of every rule, number, totals and checksums of all sums.

{_table(contest, contest[0])}

Naive Beam had {sizes.naive_small:,} and {sizes.naive_large:,} lines of the same day: more would take it hours.

## agenttrail alone

{_table(others, None)}

- Input of the whole job: {shares["unlisted"]:.1%} of rows with an unlisted peer, {shares["hits"]:.1%} hits of the 30
  rules, {shares["in findings of medium and above"]:.4%} in findings of medium and above;
  {books[1]["findings"]:,} findings, {books[1]["incidents"]} incidents.
- Linear: at {sizes.large:,} lines the whole job costs {_linear(others[1], start_up):.2f} times as much a row as at
  {sizes.small:,}, start-up left out.
- Start-up: `agenttrail run` on a thousand lines takes {start_up:.1f} CPU seconds.
- CPU seconds by step at {sizes.large:,} lines, by the books of the run: {steps}.
"""


def _linear(whole: Slope, start_up: float) -> float:
    """Return the cost a row of the large input over that of the small one, beyond what a thousand lines cost."""
    per_row = [(cost.cpu - start_up) / rows for cost, rows in zip((whole.small, whole.large), whole.rows, strict=True)]
    return per_row[1] / per_row[0]


def _table(slopes: Sequence[Slope], ours: Slope | None) -> str:
    lines = [
        "| what | M rows / CPU-s | µs a row | costs times ours | start-up CPU-s | peak MB, small / large |",
        "|---|---|---|---|---|---|",
    ]
    for slope in slopes:
        ratio = f"{slope.micros / ours.micros:.1f}" if ours and slope is not ours else ""
        memory = f"{slope.small.memory / 1e6:.0f} / {slope.large.memory / 1e6:.0f}"
        lines.append(
            f"| {slope.name} | {slope.speed:.3f} | {slope.micros:.2f} | {ratio} | {slope.start_up:.1f} | {memory} |"
        )
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
    parser.add_argument("--keep", type=Path, help="generate the input here and leave it for the next time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    sizes = Sizes(**{name: getattr(given, name) for name in vars(Sizes())})
    folder = given.keep or Path(tempfile.mkdtemp(prefix="agenttrail-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)  # the contestants are modules of the checkout
    try:
        text = bench(folder, sizes)
    finally:
        if not given.keep:
            shutil.rmtree(folder)
    given.results.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
