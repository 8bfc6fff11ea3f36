"""`make acceptance`: twenty kills of a stream or its servers at moments drawn by seed; results go into RESULTS.md."""

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
from tests.services import elasticsearch, kafka  # noqa: E402
from tests.streams.kills import Moment, Stage, day_of, endure  # noqa: E402

MARKS = (
    "<!-- made by make acceptance, stream kills: begin -->\n",
    "<!-- made by make acceptance, stream kills: end -->\n",
)
_NOTE = """## Acceptance: streams killed with SIGKILL

Made by `make acceptance`: a simulated day in topics of a real Kafka, shuffled, doubled and late, as a stream on Prism
into a directory and a real Elasticsearch.  At a moment drawn by seed the stream with its runner, or Elasticsearch, or
Kafka is killed; servers are started again while the stream runs.  Then the same command runs to the end, and findings,
incidents and letters of lateness are laid beside those of a batch run, but for `log.*`, and what Elasticsearch holds
beside the files.  Seconds are those since the stream said something first."""


def main() -> int:
    """Kill, run again, compare, and write it down; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--day", type=int, default=12, help="seed of the day")
    given = parser.parse_args()
    lines, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="agenttrail-stream-kills-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server runs as another user
        server = elasticsearch.obtain("secured", folder / "server", os.getpid())
        broker = kafka.obtain("alone", folder / "broker", os.getpid())
        try:
            day = day_of(folder / "day", given.day)
            for moment in map(Moment, range(given.moments)):
                stage = Stage(day, folder, broker, server, f"moment-{moment.seed}")
                unlike = endure(moment, stage)
                stage.remove()
                failed += bool(unlike)
                told = f"{len(unlike)} differ: {unlike[0]}" if unlike else "the same"
                lines.append(f"| {moment.seed} | {moment.victim} | {moment.after:.2f} | {told} |")
                sys.stderr.write(lines[-1] + "\n")
        finally:
            broker.remove()
            server.remove()
    head = ["| seed | killed | after s | left in the end |", "|---|---|---|---|"]
    put(RESULTS, f"\n{_NOTE}\n\n" + "\n".join([*head, *lines]) + "\n", MARKS)
    sys.stdout.write(f"{given.moments} moments: {failed} left something else than a batch run\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
