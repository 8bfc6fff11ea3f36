"""`make acceptance`: twenty kills at moments drawn by seed; what the re-runs leave goes into RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.acceptance.accept import RESULTS, put  # noqa: E402 - these need the path
from tests.disasters.kills import Moment, Undisturbed, endure  # noqa: E402
from tests.disasters.runs import simulated  # noqa: E402
from tests.services.elasticsearch import obtain  # noqa: E402

MARKS = ("<!-- made by make acceptance, kills: begin -->\n", "<!-- made by make acceptance, kills: end -->\n")
_NOTE = """## Acceptance: killed with SIGKILL

Made by `make acceptance`: a run over a small simulated day, into a directory and a real Elasticsearch, in which
something is killed at a moment drawn by seed.  Then the same run is done again, and what stands there is laid beside
what an undisturbed run leaves: every file byte for byte, but for the seconds in `run.json` and whether it says of a
document that it was created or updated; and every document of Elasticsearch.  Seconds are those since the
run's start, or since its first worker's."""


def main() -> int:
    """Kill, run again, compare, and write it down; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    given = parser.parse_args()
    lines, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="agenttrail-kills-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server runs as another user
        server = obtain("secured", folder / "server", os.getpid())
        try:
            undisturbed = Undisturbed(simulated(folder / "day"), folder, server)
            for moment in map(Moment, range(given.moments)):
                seconds, unlike = endure(moment, undisturbed, server)
                failed += bool(unlike)
                run = "second half of the day" if moment.bounded else "whole day"
                told = f"{len(unlike)} differ: {unlike[0]}" if unlike else "the same"
                lines.append(f"| {moment.seed} | {moment.victim} | {run} | {seconds:.2f} | {told} |")
                sys.stderr.write(lines[-1] + "\n")
        finally:
            server.remove()
    head = ["| seed | killed | run over | after s | left by the re-run |", "|---|---|---|---|---|"]
    put(RESULTS, f"\n{_NOTE}\n\n" + "\n".join([*head, *lines]) + "\n", MARKS)
    sys.stdout.write(f"{given.moments} moments: {failed} left something else than an undisturbed run\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
