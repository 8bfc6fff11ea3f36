"""A pod list that is none fails as a whole; among pods on lines of their own a broken one costs itself."""

from __future__ import annotations

import pytest

from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

_POD = b"""{"metadata": {"name": "a"}, "status": {"podIP": "10.0.0.7", "startTime": "2026-03-02T00:00:00Z"}}\n"""


def test_pods_in_yaml_fail_with_their_place_although_they_quote_json() -> None:
    quoting = b"items:\n- metadata:\n    annotations:\n      last-applied: |\n        " + _POD + b"    name: a\n"
    with pytest.raises(InputError, match=r"pods\.yaml:1:1: not valid JSON"):
        FORMATS["kubernetes_pods"].parser({})(Block(quoting, "pods.yaml", 0))


def test_a_broken_line_among_pods_costs_itself() -> None:
    parsed = FORMATS["kubernetes_pods"].parser({})(Block(_POD[:-9] + b"\n" + _POD, "pods.jsonl", 0))
    assert (parsed.lines, parsed.events.num_rows) == (2, 1)
    assert parsed.dead.column("error.message").to_pylist() == ["line 1: not valid JSON"]


def test_an_item_nested_deeper_than_can_be_written_is_a_dead_letter() -> None:
    """It costs itself, not the run."""
    deep = '{"items":[{"metadata":' + "[" * 500 + "]" * 500 + "}]}"
    parsed = FORMATS["kubernetes_pods"].parser({})(Block(deep.encode(), "pods.json", 0))
    assert (parsed.events.num_rows, parsed.dead.num_rows) == (0, 1)
