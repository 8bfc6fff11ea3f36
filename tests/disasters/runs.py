"""Runs as processes of their own, and what they leave: in the output directory and in Elasticsearch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml
from tests.sinks.documents import settings_of, tidy

from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import connect, setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.services.elasticsearch import Elasticsearch as Server

PROGRAM = Path(sys.executable).parent / "agenttrail"
HALF = "2026-03-02T00:40:00Z"
"""A time within the simulated day, at which one run ends and the next one begins."""


@dataclass(frozen=True)
class Left:
    """What a run leaves.

    Attributes:
        files: content of every file of the output directory by its path, ``run.json`` without seconds.
        documents: every document of Elasticsearch by the name of its index and its id.
    """

    files: Mapping[str, bytes]
    documents: Mapping[str, Any]

    def unlike(self, other: Left) -> list[str]:
        """Return what is not the same in both."""
        return [
            name
            for ours, theirs in ((self.files, other.files), (self.documents, other.documents))
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]


@dataclass(frozen=True)
class Place:
    """A job over a simulated day that writes to a directory and an Elasticsearch of its own.

    Attributes:
        folder: holds the job file and the output directory.
        server: where it writes; None writes files only.
        prefix: of the names of its indices.
    """

    folder: Path
    server: Server | None = None
    prefix: str = ""

    @property
    def out(self) -> Path:
        """Return the output directory."""
        return self.folder / "out"

    def prepare(self, day: Path, **settings: Any) -> None:
        """Write the job file, and set the server up for it."""
        self.folder.mkdir(exist_ok=True)
        job = yaml.safe_load((day / "job.yml").read_text(encoding="utf-8"))
        for source in (*job["events"], *job["leases"]):
            source["path"] = str(day / source["path"])
        job["output"] = {"directory": "out"}
        if self.server:
            where: dict[str, Any] = {"url": self.server.url, "prefix": self.prefix}
            if self.server.password:
                where |= {"username": "elastic", "password": "${TEST_PASSWORD}", "ca_certs": self.server.ca_certs}
            job["output"]["elasticsearch"] = where | settings
            setup(self.client(), prefix=self.prefix)
        (self.folder / "job.yml").write_text(yaml.safe_dump(job), encoding="utf-8")

    def client(self) -> Any:
        """Return a client that may do everything."""
        assert self.server
        os.environ["TEST_PASSWORD"] = self.server.password or "none"
        return connect(settings_of(self.server), patience=60.0)

    def start(self, *options: str, through: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        """Start a run in the background, ``through`` another program where one is given."""
        return subprocess.Popen(
            [*through, PROGRAM, "run", "job.yml", *options], cwd=self.folder, env={**os.environ, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *options: str, **environment: str) -> None:
        """Run to the end, which must be a good one."""
        with self.start(*options, **environment) as process:
            _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    def fail(self, *options: str, through: Sequence[str] = (), **environment: str) -> str:
        """Run, which must fail with a sentence for people; return it."""
        with self.start(*options, through=through, **environment) as process:
            _, said = process.communicate(timeout=300)
        assert process.returncode == 1, said
        assert "Traceback" not in said
        *_, last = said.splitlines()
        assert last.startswith("agenttrail: ")
        return last

    def left(self) -> Left:
        """Return what is there now; nothing of a run that failed is among it."""
        assert not (self.out / ".parts").exists()
        found = {str(path.relative_to(self.out)): path for path in self.out.rglob("*") if path.is_file()}
        # pages name the directory in the commands that they show
        files = {name: path.read_bytes().replace(str(self.out).encode(), b"OUT") for name, path in found.items()}
        summary = orjson.loads(files["run.json"])
        del summary["seconds"]
        # a second run updates what the first one wrote, and replaces what it found
        summary.pop("findings_of_earlier_runs", None)
        written = summary.pop("elasticsearch", {})
        summary["written"] = {kind: sum(done.values()) for kind, done in written.items()}
        files["run.json"] = orjson.dumps(summary)
        return Left(files, self._documents() if self.server else {})

    def _documents(self) -> dict[str, Any]:
        client = self.client()
        client.indices.refresh(index=f"{self.prefix}-*")
        hits = client.search(index=f"{self.prefix}-*", size=10_000).body["hits"]["hits"]
        documents = {f"{hit['_index'].removeprefix(self.prefix)}/{hit['_id']}": hit["_source"] for hit in hits}
        assert len(documents) == client.count(index=f"{self.prefix}-*").body["count"] > 0
        return documents

    def remove(self) -> None:
        """Remove its indices."""
        if self.server:
            tidy(self.client(), self.prefix)


def simulated(folder: Path) -> Path:
    """Return a small day with a few incidents."""
    simulate(folder, agents=3, hours=1.0, seed=51)
    return folder
