"""The same lines give the same findings and incidents, wherever they stand and however they are read."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.scenarios.days import events_of, lines_of, with_events
from tests.scenarios.reshaping import reshape

from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from pathlib import Path

_COUNTS = (
    "with_events", "dead", "events", "gaps", "attributed", "ambiguous", "unattributed", "signals", "duplicates",
    "leases",
)  # fmt: skip


def _without_place(value: Any) -> Any:
    """Return a value without what it says of where it was read."""
    if isinstance(value, dict):
        return {key: _without_place(one) for key, one in value.items() if not key.startswith("log.")}
    return [_without_place(one) for one in value] if isinstance(value, list) else value


def _said(out: Path) -> dict[str, Any]:
    """Return all that an output directory says, but for places and seconds."""
    summary = orjson.loads((out / "run.json").read_bytes())
    dead = [(one["event.dataset"], one["event.original"]) for one in lines_of(out / "dead_letters.ndjson")]
    return {
        **{name: _without_place(lines_of(out / f"{name}.ndjson")) for name in ("findings", "incidents")},
        "dead letters": Counter(dead),
        "counts": {name: summary["total"].get(name, 0) for name in _COUNTS},
        "events": _in_order(events_of(out)),
    }


def _in_order(events: pa.Table) -> pa.Table:
    """Return events without their places, in an order that only they themselves decide."""
    events = events.drop_columns(["log.file.path", "log.offset"])
    place = events.schema.get_field_index("attribution.candidates")
    candidates = pc.binary_join(events.column(place), ",")
    events = events.set_column(place, "attribution.candidates", candidates)
    return events.sort_by([(name, "ascending") for name in events.schema.names])


def _options(dice: Random) -> RunOptions:
    """Return other sizes of what is read at once, and another number of shards."""
    return RunOptions(
        range_bytes=1 << dice.randrange(14, 24), block_bytes=1 << dice.randrange(12, 24), shards=dice.randrange(1, 40)
    )


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_other_files_and_sizes_change_nothing(tmp_path: Path, seed: int) -> None:
    """Lines shuffled over other files, headers repeated or left out, gz, zst or plain; other ranges, blocks, shards."""
    dice = Random(seed)
    simulate(tmp_path / "day", agents=4, hours=1.5, seed=seed)
    run(load_job(with_events(tmp_path / "day")))
    expected = _said(tmp_path / "day" / "out")
    assert len(expected["incidents"]) >= 3
    assert expected["dead letters"]
    for variant in ("once", "again"):
        reshape(tmp_path / "day", tmp_path / variant, dice)
        run(load_job(tmp_path / variant / "job.yml"), _options(dice))
        said = _said(tmp_path / variant / "out")
        for what, value in expected.items():
            assert said[what] == value, (variant, what)
