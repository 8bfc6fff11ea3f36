"""Several batches as one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from agenttrail.columns.batches import as_one_batch


def test_what_does_not_fit_into_one_column_is_not_cut_off() -> None:
    """More than 2 GiB of text stay in several chunks, of which the first is not all."""
    chunks = pa.table({"a": pa.chunked_array([["x"], ["y"]])})
    assert as_one_batch(chunks).to_pydict() == {"a": ["x", "y"]}
    too_long: Any = SimpleNamespace(combine_chunks=lambda: chunks)
    with pytest.raises(ValueError, match="2 GiB"):
        as_one_batch(too_long)
