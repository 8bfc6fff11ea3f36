"""`make acceptance`: ten days that nothing was tuned on, and where detection ends; the results go into RESULTS.md.

The oracles with their 20,000 cases and more each are run before this by pytest, with the profile ``acceptance``.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import orjson  # noqa: E402 - these need the path
from tests.acceptance.sweep import GRIDS, sweep, table  # noqa: E402

from agenttrail.incident_files import read_incidents  # noqa: E402
from agenttrail.job_files import load_job  # noqa: E402
from agenttrail.jobs import run  # noqa: E402
from agenttrail.simulate import simulate  # noqa: E402
from agenttrail.simulate.scoring import Score, rate_table, rates, score  # noqa: E402

RESULTS, GUIDE = ROOT / "tests" / "benchmarks" / "RESULTS.md", ROOT / "rules" / "README.md"
MARKS = ("<!-- made by make acceptance: begin -->\n", "<!-- made by make acceptance: end -->\n")
_TEXT = "agenttrail, acceptance day {number}"
_AGENTS, _HOURS = 12, 6.0
_PARAMETERS = ("tool call", "form", "period_s", "jitter", "bytes", "duration_s", "targets", "connections")
"""Parameters that the table of the guide tells rates by."""


def seed_of(number: int) -> int:
    """Return a seed that nobody chose: the first four bytes of the digest of a text fixed before any run."""
    return int.from_bytes(hashlib.sha256(_TEXT.format(number=number).encode()).digest()[:4])


def days(folder: Path, count: int) -> tuple[Score, list[str]]:
    """Simulate days, run their jobs, and return the score of all and a line on each."""
    every, lines = Score(), []
    for number in range(1, count + 1):
        day, seed = folder / f"day-{number}", seed_of(number)
        simulate(day, agents=_AGENTS, hours=_HOURS, seed=seed)
        job = load_job(day / "job.yml")
        run(job)
        one = score(orjson.loads((day / "truth.json").read_bytes()), read_incidents(str(job.directory)))
        told = f"{len(one.verdicts)} | {len(one.missed)} | {len(one.wrong)} | {one.clean} | {len(one.innocent)}"
        lines.append(f"| {number} | {seed} | {told} |")
        lines += [
            f"|  |  | missed: {v.behaviour['kind']} {v.behaviour['parameters']} |  |  |  |  |" for v in one.missed
        ]
        lines += [f"|  |  | wrong: {v.behaviour['kind']}: {'; '.join(v.wrong)} |  |  |  |  |" for v in one.wrong]
        lines += [f"|  |  | accused: {i['incident.title']} |  |  |  |  |" for i in one.innocent]
        sys.stderr.write(lines[-1] + "\n")
        every.add(one)
    return every, lines


def put(path: Path, text: str, marks: tuple[str, str] = MARKS) -> None:
    """Put ``text`` between the marks of a file, at its end where it has none."""
    begin, end = marks
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in whole:
        whole = f"{whole.rstrip()}\n\n{begin}{end}"
    head, rest = whole.split(begin)
    path.write_text(f"{head}{begin}{text}{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    """Run everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agenttrail-acceptance-") as name:
        folder = Path(name)
        told, lines = days(folder, given.days)
        (folder / "sweep").mkdir()
        found = sweep(folder / "sweep", GRIDS)
    head = [
        "| day | seed | instances | missed | told wrong | clean sandboxes | accused |",
        "|---|---|---|---|---|---|---|",
    ]
    put(RESULTS, f"\n## Acceptance: days that nothing was tuned on\n\n{_NOTE}\n\n" + "\n".join([*head, *lines]) + "\n")
    by_parameter = [one for one in rates(told.verdicts) if one.parameter in ("", *_PARAMETERS)]
    grids = "\n".join(table(name, GRIDS[name], found[name]) for name in GRIDS)
    put(GUIDE, f"\n{_RATES}\n\n{rate_table(by_parameter)}\n{_ENDS}\n\n{grids}")
    sys.stdout.write(f"{len(told.verdicts)} instances: {len(told.missed)} missed, {len(told.wrong)} told wrong; ")
    sys.stdout.write(f"{len(told.innocent)} of {told.clean} clean sandboxes accused\n")


_NOTE = f"""Made by `make acceptance`: days of {_AGENTS} agents and {_HOURS:g} hours, of seeds that are digests of a
text that was fixed before.  An instance is told right if its incident names the agent, trajectory, sandbox and job, has
a fitting technique and all peers, was first seen at the second of the first activity, and names the tool call that
started it."""
_RATES = f"""On simulated days that nothing was tuned on ({_AGENTS} agents, {_HOURS:g} hours each), so many instances of
each behaviour have an incident of medium severity or above for the right sandbox:"""
_ENDS = """Detection ends somewhere.  On these grids no tool call tells, no firewall recognises anything, and GPUs have
no counters of tensor cores: what is left is what flow logs, GPU use and steps show.  Each point was drawn three times,
in a sandbox that lives two hours."""


if __name__ == "__main__":
    main()
