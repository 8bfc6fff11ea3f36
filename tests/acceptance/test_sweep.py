"""Where detection ends, on the corners of the grids: found well inside, silent well outside."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.acceptance.sweep import GRIDS, sweep, table

if TYPE_CHECKING:
    from pathlib import Path

_CORNERS: dict[str, tuple[tuple[float, ...], tuple[float, ...], dict[tuple[float, float], float]]] = {
    "beacon": ((60, 480), (0.2, 1), {(60, 0.2): 1, (60, 1): 0, (480, 0.2): 0, (480, 1): 0}),
    "tunnel on 443 that nobody recognises": (
        (5, 20),
        (0.3, 0.7),
        {(5, 0.3): 0, (5, 0.7): 0, (20, 0.3): 0, (20, 0.7): 1},
    ),
    "GPU diversion, pool on 443": ((5, 20), (0, 20), {(5, 0): 0, (5, 20): 0, (20, 0): 1}),
    "exfiltration to one peer": ((0.5, 5), (20, 150), {(0.5, 150): 0, (5, 20): 1, (5, 150): 1}),
    "internal scan": ((10, 50), (1, 60), {(10, 1): 0, (10, 60): 0, (50, 1): 1, (50, 60): 0}),
    "refused egress": ((5, 20), (1, 25), {(5, 1): 0, (5, 25): 0, (20, 1): 1, (20, 25): 0}),
}


def test_the_corners_of_the_grids_are_found_or_silent(tmp_path: Path) -> None:
    """Each behaviour without a telling word and without a firewall that recognises it."""
    assert _CORNERS.keys() == GRIDS.keys()
    grids = {name: replace(GRIDS[name], rows=rows, columns=columns) for name, (rows, columns, _) in _CORNERS.items()}
    found = sweep(tmp_path, grids, draws=2)
    for name, (_, _, wanted) in _CORNERS.items():
        assert {point: found[name][point] for point in wanted} == wanted, name
    assert "| 60 | 100% | 0% |" in table("beacon", grids["beacon"], found["beacon"])
