"""Golden samples: what each sample file must give, in a form that can be read and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from agenttrail.columns.json_text import json_objects
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block, Parsed

SAMPLES = Path(__file__).parent.parent / "data" / "formats"
SETTINGS: dict[str, dict[str, Any]] = {
    "kubernetes_pods": {
        "scope": "vpc-a1",
        "identity": {
            "gen_ai.agent.id": 'metadata.labels["example.test/agent"]',
            "trajectory.id": 'metadata.labels["example.test/episode"]',
        },
    },
    "address_leases": {"scope": "vpc-default"},
}


def sample_of(name: str) -> Path:
    """Return the sample file of a format."""
    (path,) = (SAMPLES / name).glob("sample.*")
    return path


def parsed_sample(name: str) -> Parsed:
    """Parse the sample of a format."""
    path = sample_of(name)
    result: Parsed = FORMATS[name].parser(SETTINGS.get(name, {}))(Block(path.read_bytes(), path.name, 0))
    return result


def shown(parsed: Parsed) -> str:
    """Return what a sample gave as JSON lines: counts, records, dead letters."""
    head = (
        f'{{"lines":{parsed.lines},"skipped":{parsed.skipped},'
        f'"records":{parsed.events.num_rows},"dead":{parsed.dead.num_rows}}}'
    )
    names = [name for name in parsed.events.schema.names if name not in ("event.original", "log.file.path")]
    records = json_objects(parsed.events.select(names)).to_pylist()
    dead = json_objects(
        pa.RecordBatch.from_arrays(
            [parsed.dead.column("log.offset"), parsed.dead.column("error.message")],
            names=["log.offset", "error.message"],
        )
    ).to_pylist()
    return "\n".join([head, *records, *dead]) + "\n"
