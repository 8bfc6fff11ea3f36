"""No secret that an agent's tool call held is in any output file, index, log or report."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from elasticsearch.helpers import scan

from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

_RULE = """\
title: Any tool call
id: 7f2d9c4e-1111-4f0a-9a55-3c1f0f7a9b01
status: test
description: Brings every tool call into findings, so that all of them are written.
level: medium
logsource: {product: agenttrail, category: tool_call}
detection:
  any:
    gen_ai.tool.call.arguments|exists: true
  condition: any
"""


def test_no_secret_of_a_day_leaves_the_job(
    tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """With a rule that puts every tool call into findings, incidents and timelines; nor does the terminal show one."""
    simulate(tmp_path / "day", agents=8, hours=2.0, seed=2_026)
    secrets = orjson.loads((tmp_path / "day" / "truth.json").read_bytes())["secrets"]
    assert len(secrets) > 10
    (tmp_path / "day" / "rules").mkdir()
    (tmp_path / "day" / "rules" / "any.yml").write_text(_RULE)
    job = yaml.safe_load((tmp_path / "day" / "job.yml").read_text())
    job |= {"rules": ["builtin", "./rules"], "output": {"directory": "out", "events": True}}
    job["output"]["elasticsearch"] = {"url": elasticsearch.url, "prefix": prefix}
    (tmp_path / "day" / "job.yml").write_text(yaml.safe_dump(job))
    out = tmp_path / "day" / "out"
    said = [_said("run", str(tmp_path / "day" / "job.yml"), "--json"), _said("incidents", "list", "--from", str(out))]
    incidents = [json.loads(line)["incident.id"] for line in (out / "incidents.ndjson").read_text().splitlines()]
    assert len(incidents) > 20
    for incident in incidents[:10]:
        said.append(_said("incidents", "show", "--from", str(out), "--all", incident))
        said.append(_said("incidents", "show", "--from", str(out), "--json", incident))
    texts = [*said, *_files(out), *_documents(client, prefix)]
    assert any("execute_tool" in text or "gen_ai.tool.call.arguments" in text for text in texts)
    assert "[REDACTED]" in "".join(said)
    everything = "\n".join(texts)
    assert [secret for secret in secrets if secret in everything] == []


def _said(*command: str) -> str:
    """Return all that the program says."""
    done = subprocess.run([sys.executable, "-m", "agenttrail", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.returncode, done.stderr[-2_000:])
    return done.stdout + done.stderr


def _files(out: Path) -> Iterator[str]:
    """Yield every output file as text, Parquet decoded; dead letters are what they are: the originals, unread."""
    for path in sorted(out.rglob("*")):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            for column in table.columns:
                if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
                    yield "\n".join(str(value) for value in column.unique().to_pylist())
        elif path.is_file() and path.name != "dead_letters.ndjson":
            yield path.read_text()


def _documents(client: Elasticsearch, prefix: str) -> Iterator[str]:
    """Yield every document of every index."""
    client.indices.refresh(index=f"{prefix}-*")
    for kind in ("incidents", "findings", "timeline"):
        hits = [json.dumps(hit["_source"]) for hit in scan(client, index=f"{prefix}-{kind}-*")]
        assert hits, kind
        yield "\n".join(hits)
