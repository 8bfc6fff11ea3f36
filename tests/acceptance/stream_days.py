"""`make acceptance`: ten days as streams, from topics on two runners and from files that grow.

What differs from a batch run goes into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402 - these need the path
from tests.acceptance.accept import RESULTS, put, seed_of  # noqa: E402
from tests.services import beam_servers, elasticsearch, kafka  # noqa: E402
from tests.streams.arrivals import as_directories, grow  # noqa: E402
from tests.streams.kills import Stage, day_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.services.elasticsearch import Elasticsearch
    from tests.services.kafka import Kafka
    from tests.streams.kills import Day

MARKS = (
    "<!-- made by make acceptance, stream days: begin -->\n",
    "<!-- made by make acceptance, stream days: end -->\n",
)
_AGENTS, _HOURS = 3, 6.0
_PATIENCE = 600.0  # seconds
_NOTE = f"""## Acceptance: days as streams

Made by `make acceptance`: days of {_AGENTS} agents and {_HOURS:g} hours, of the seeds of the days above.  Lines come
shuffled by two minutes either way, one in a hundred up to ten minutes late, one in a hundred twice, some an
hour late, pods five minutes after they began.  From topics of a real Kafka they are read as fast as it goes, on Prism
and on Flink, into a real Elasticsearch; files grow while the stream runs on Prism, which is then told to end, and
started again.  What is said in the end is laid beside a batch run on all lines but those that came too late: findings
and incidents but for `log.*`, in the files and in Elasticsearch; and the lines that were told to be late beside those
that were."""


def from_topics(day: Day, folder: Path, servers: tuple[Kafka, Elasticsearch], name: str, *flags: str) -> list[str]:
    """Return what a stream from topics into Elasticsearch leaves otherwise than a batch run; flags name a runner."""
    broker, server = servers
    stage = Stage(day, folder, broker, server, name, flags)
    try:
        stage.finish()
        return stage.unlike()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return [f"it did not end well: {str(error)[-3_000:]}"]
    finally:
        stage.remove()


def from_files(day: Day, folder: Path) -> list[str]:
    """Return the same of one from files that grow, which is ended and started again once they have."""
    path = as_directories(day.folder, day.wire, folder)
    events = len(yaml.safe_load((day.folder / "job.yml").read_text())["events"])
    with subprocess.Popen([*_RUN, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        grow(day.wire, folder, events, seconds=15)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        return [f"it ended with {process.returncode}: {told.decode()[-3_000:]}"]
    return _finished(day, path)


_RUN = (sys.executable, "-m", "agenttrail", "run", "--streaming")


def _finished(day: Day, path: Path) -> list[str]:
    command = [*_RUN, "--end-of-input", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        return [f"it ended with {done.returncode}: {done.stderr[-3_000:]}"]
    return day.unlike(path.parent / "out")


def main() -> int:
    """Run all days in all ways, and write it down; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=10)
    given = parser.parse_args()
    lines, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="agenttrail-stream-days-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run as another user
        watch = os.getpid()
        with ExitStack() as during:
            server = elasticsearch.obtain("plain", folder / "server", watch)
            during.callback(server.remove)
            broker = kafka.obtain("alone", folder / "broker", watch)
            during.callback(broker.remove)
            flink = beam_servers.obtain("flink", folder / "flink", watch)
            during.callback(flink.remove)
            for number in range(1, given.days + 1):
                seed = seed_of(number)
                day = day_of(folder / f"day-{number}", seed, agents=_AGENTS, hours=_HOURS)
                on_flink = f"flink-{number}"
                ways = [
                    from_topics(day, folder, (broker, server), f"prism-{number}"),
                    from_topics(day, folder, (broker, server), on_flink, *flink.stream_options(on_flink)),
                    from_files(day, folder / f"files-{number}"),
                ]
                failed += sum(map(bool, ways))
                counts = f"{len(day.wire.lines):,} | {len(day.too_late)} | {len(day.findings)} | {len(day.incidents)}"
                lines.append(f"| {number} | {seed} | {counts} | {' | '.join(map(_verdict, ways))} |")
                sys.stderr.write(lines[-1] + "\n")
    put(RESULTS, f"\n{_NOTE}\n\n{_HEAD}\n" + "\n".join(lines) + "\n", MARKS)
    sys.stdout.write(f"{given.days} days in three ways: {failed} left something else than a batch run\n")
    return 1 if failed else 0


_HEAD = """\
| day | seed | lines | too late | findings | incidents | topics, Prism | topics, Flink | files |
|---|---|---|---|---|---|---|---|---|"""


def _verdict(unlike: Sequence[str]) -> str:
    return f"{len(unlike)} differ: {unlike[0]}" if unlike else "the same"


if __name__ == "__main__":
    sys.exit(main())
