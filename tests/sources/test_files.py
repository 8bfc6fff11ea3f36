"""However a file is cut and stored, its lines are its lines."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import zstandard
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st

from agenttrail import jobs
from agenttrail.columns.batches import joined
from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.parsing import Block
from agenttrail.sources import files
from agenttrail.sources.files import WHOLE_FILES, InputFile, match, plan_ranges, read_blocks, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.parsing import Headers
    from agenttrail.sources.files import InputRange

V2 = (
    b"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes "
    b"start end action log-status\n"
)
SHORT = b"dstaddr srcaddr dstport srcport start bytes action\n"
_V2_LINE = b"2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 1772409600 1772409660 ACCEPT OK\n"
_SHORT_LINE = b"10.0.0.9 10.0.0.8 22 50000 1772409601 99 REJECT\n"
_LINE = st.sampled_from(
    [_V2_LINE, _SHORT_LINE, V2, SHORT, b"\n", b"junk\n", b"eni-1 srcaddr nonsense\n", _V2_LINE.replace(b"\n", b"\r\n")]
)


def _blocks(file: InputFile, range_bytes: int, block_bytes: int) -> list[Block]:
    headers = FORMATS["aws_vpc_flow"].headers
    blocks = []
    for part in plan_ranges(file, headers, range_bytes):
        for block in read_blocks(part, headers, block_bytes):
            assert isinstance(block, Block)
            blocks.append(block)
    return blocks


def _parsed(blocks: list[Block]) -> tuple[list[dict[str, object]], list[dict[str, object]], int, int]:
    parse = FORMATS["aws_vpc_flow"].parser({})
    results = [parse(block) for block in blocks]
    events = joined([result.events for result in results]).to_pylist() if results else []
    dead = pa.Table.from_batches([result.dead for result in results]).to_pylist() if results else []
    events = [{name: value for name, value in event.items() if value is not None} for event in events]
    return events, dead, sum(r.lines for r in results), sum(r.skipped for r in results)


@given(
    st.lists(_LINE, max_size=25),
    st.booleans(),
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(["", "gz", "zst"]),
)
def test_cuts_and_compression_change_no_result(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends: bool,  # noqa: FBT001 - Hypothesis passes by place
    range_bytes: int,
    block_bytes: int,
    kind: str,
) -> None:
    """Also where the header changes in the middle of the file."""
    data = b"".join(lines)
    data = data if ends else data.rstrip(b"\r\n")
    path = tmp_path_factory.mktemp("cut") / "flow.log"
    stored = {"": data, "gz": gzip.compress(data), "zst": zstandard.compress(data)}[kind]
    path.write_bytes(stored)
    file = InputFile(str(path), "flow.log", len(stored), 0)
    blocks = _blocks(file, range_bytes, block_bytes)
    assert b"".join(block.data for block in blocks) == data
    assert [block.offset for block in blocks] == [
        sum(len(before.data) for before in blocks[:n]) for n in range(len(blocks))
    ]
    assert _parsed(blocks) == _parsed([Block(data, "flow.log", 0)] if data else [])


def test_who_reads_a_block_says_whether_a_header_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "flow.log"
    path.write_bytes(V2 + _V2_LINE * 2 + SHORT + _SHORT_LINE * 2)
    file = InputFile(str(path), "flow.log", path.stat().st_size, 0)
    blocks = _blocks(file, 10_000, 1)
    assert [block.bare for block in blocks] == [False, True, True, False, True, True]
    assert _parsed(blocks) == _parsed([replace(block, bare=False) for block in blocks])


def test_several_members_and_padding_of_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 100)
    (part,) = plan_ranges(InputFile(str(path), "a", 1, 0), None)
    assert [block.data for block in read_blocks(part, None)] == [b"one\ntwo\n"]


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_torn_file_gives_what_came_before_and_one_remainder(tmp_path: Path, kind: str, share: float) -> None:
    lines = b"".join(os.urandom(30).hex().encode() + b"\n" for _ in range(20_000))
    whole = {"gz": gzip.compress(lines), "zst": zstandard.compress(lines)}[kind]
    path = tmp_path / "torn"
    path.write_bytes(whole[: int(len(whole) * share)])
    (part,) = plan_ranges(InputFile(str(path), "torn", 1, 0), None)
    *blocks, last = list(read_blocks(part, None, 100_000))
    data = b"".join(block.data for block in blocks)
    assert lines.startswith(data + last.data)
    assert data[-1:] in (b"", b"\n")
    assert b"\n" not in last.data
    assert isinstance(last, files.Remains)
    assert "cut off" in last.reason


def test_an_endless_line_is_cut_up_and_the_next_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LINE_BYTES", 10_000)
    path = tmp_path / "long"
    path.write_bytes(b"a" * 25_000 + b"\nnext\n")
    (part,) = plan_ranges(InputFile(str(path), "long", 25_006, 0), None)
    pieces = list(read_blocks(part, None, 1_000))
    assert b"".join(piece.data for piece in pieces) == b"a" * 25_000 + b"\nnext\n"
    assert any(isinstance(piece, files.Remains) for piece in pieces)
    assert isinstance(pieces[-1], Block)
    assert pieces[-1].data.endswith(b"next\n")


def test_a_glob_names_files_and_not_folders(tmp_path: Path) -> None:
    for name in ("b.log", "a.log", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.log").mkdir()
    assert [Path(path).name for path, _ in match(str(tmp_path / "*.log"))] == ["a.log", "b.log"]
    assert match(str(tmp_path / "none*")) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b" \n", "empty", id="blank"),
        # without the time of day: workers must collect the same tests
        pytest.param(gzip.compress(b"{}", mtime=0)[:-9], "cut off", id="torn"),
    ],
)
def test_metadata_that_cannot_be_read_as_a_whole_is_an_error_with_its_path(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "pods.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"pods\.json.*{said}"):
        read_document(InputFile(str(path), "pods.json", len(data), 0))


def test_a_pipe_among_the_files_is_an_error_and_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    with pytest.raises(InputError, match=r"pipe\.log: is no regular file"):
        match(str(tmp_path / "*.log"))


def test_zstd_may_begin_with_a_frame_to_skip_and_end_in_zero_bytes() -> None:
    """As parallel compressors and block devices leave it."""
    import io

    import zstandard

    from agenttrail.sources.decompression import is_compressed, pieces

    data = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstandard.compress(b"one\ntwo\n") + b"\0" * 5_000
    assert is_compressed(data[:4])
    assert b"".join(pieces(io.BytesIO(data))) == b"one\ntwo\n"


def test_a_small_zstd_bomb_comes_in_small_pieces() -> None:
    """Memory is bounded by the piece, not by what a file unpacks to."""
    import io

    import zstandard

    from agenttrail.sources.decompression import pieces

    data = zstandard.compress(bytes(400 << 20), 19)
    sizes = [len(piece) for piece in pieces(io.BytesIO(data))]
    assert sum(sizes) == 400 << 20
    assert max(sizes) <= 192 << 20


@pytest.mark.parametrize(
    "filler", [b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 40 1 2 ACCEPT OK\n", b"2 - from - - - - - - - - - - -\n"]
)
def test_a_header_anywhere_in_a_large_file_is_in_force_below_it(tmp_path: Path, filler: bytes) -> None:
    """Also where it is the first line behind the part of the file that is always looked at that holds its letter."""
    top, later = b"version srcaddr dstaddr start end\n", b"srcaddr dstaddr start end action\n"
    path = tmp_path / "large.log"
    many = filler * (3_000_000 // len(filler))
    path.write_bytes(top + many + later + many)
    file = InputFile(str(path), str(path), path.stat().st_size, 0)
    in_force = {part.start: part.header for part in plan_ranges(file, FORMATS["aws_vpc_flow"].headers, 700_000)}
    changes = len(top) + len(many)
    assert {start: header for start, header in in_force.items() if 0 < start <= changes} == {
        start: top for start in in_force if 0 < start <= changes
    }
    assert all(header == later for start, header in in_force.items() if start > changes)
    assert any(start > changes for start in in_force)


@pytest.mark.parametrize(
    ("flags", "alone"),
    [
        ([], True),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
        (["--direct_num_workers=0"], False),
        (["--runner=FlinkRunner"], False),
    ],
)
def test_files_are_cut_for_workers_and_only_for_them(flags: list[str], alone: bool) -> None:  # noqa: FBT001 - a table
    assert jobs.reads_alone(PipelineOptions(["--runner=FnApiRunner", *flags])) is alone


@pytest.mark.parametrize("cut", [None, 300])
def test_a_run_by_one_process_cuts_no_file_unless_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int | None
) -> None:
    asked: list[int] = []

    def noting(file: InputFile, headers: Headers | None, range_bytes: int) -> Iterator[InputRange]:
        asked.append(range_bytes)
        return plan_ranges(file, headers, range_bytes)

    monkeypatch.setattr(files, "plan_ranges", noting)
    (tmp_path / "flows.log").write_bytes(V2 + _V2_LINE * 20)
    (tmp_path / "job.yml").write_text(
        "name: cut\nevents:\n- {format: aws_vpc_flow, path: flows.log}\nrules: [builtin]\noutput: {directory: out}\n"
    )
    jobs.run(load_job(tmp_path / "job.yml"), jobs.RunOptions(range_bytes=cut))
    assert asked == [WHOLE_FILES if cut is None else cut]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["total"]["events"] == 20
