"""Disks that are full, directories that cannot be written, limits: what stood there stays, and a re-run mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.disasters.runs import HALF, Left, Place, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("disks")
_KIBI = 1 << 10


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated day."""
    return simulated(tmp_path_factory.mktemp("disks") / "day")


@pytest.fixture(scope="module")
def undisturbed(day: Path) -> Place:
    """Return a place in which nothing happened."""
    place = Place(day.parent / "undisturbed")
    place.prepare(day)
    place.run()
    return place


@pytest.fixture
def place(day: Path, tmp_path: Path) -> Place:
    """Return a place for a job over that day."""
    place = Place(tmp_path)
    place.prepare(day)
    return place


class _Disk:
    """A small file system in memory, mounted where a job puts its output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=64m", "none")

    def room(self, free: int) -> None:
        """Leave so many bytes free."""
        used = os.statvfs(self._folder)
        taken = (used.f_blocks - used.f_bfree) * used.f_frsize
        self._mount("-o", f"remount,size={taken + free}")

    def allow(self, *, writing: bool) -> None:
        """Let it be written, or only read."""
        self._mount("-o", f"remount,{'rw' if writing else 'ro'},size=64m")

    def remove(self) -> None:
        subprocess.run(["umount", self._folder], check=True)  # noqa: S607 - from the path, as all do

    def _mount(self, *options: str) -> None:
        done = subprocess.run(["mount", *options, self._folder], check=False, capture_output=True, text=True)  # noqa: S607 - as above
        if done.returncode:
            pytest.skip(f"NO FILE SYSTEM CAN BE MOUNTED HERE, NOT TESTED ON ONE: {done.stderr.strip()}")


@pytest.fixture
def disk(place: Place) -> Iterator[_Disk]:
    """Return a file system of its own for the output directory."""
    disk = _Disk(place.out)
    yield disk
    disk.remove()


def _visible(place: Place) -> dict[str, bytes]:
    return {str(path.relative_to(place.out)): path.read_bytes() for path in place.out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_disk_that_fills_up(seed: int, place: Place, undisturbed: Place, disk: _Disk) -> None:
    """At some part, or when all is put together; the run goes on with an earlier one, or takes its place."""
    dice = Random(seed)
    bounded = seed == 1
    place.run("--end", HALF)
    before = _visible(place)
    wanted = undisturbed.left()
    disk.room(int(dice.uniform(0.02, 0.95) * sum(map(len, wanted.files.values())) / _KIBI) * _KIBI)
    said = place.fail(*(("--start", HALF) if bounded else ()))
    assert "No space left on device; make room there, or name another directory with --output, and run again" in said
    assert _visible(place) == before
    disk.room(64 << 20)
    place.run(*(("--start", HALF) if bounded else ()))
    assert _without_times(place.left()).unlike(_without_times(wanted)) == []


def _without_times(left: Left) -> Left:
    """Leave out ``run.json``, which tells of the times that runs were over, and the report, which shows them."""
    kept = {name: data for name, data in left.files.items() if name != "run.json" and not name.startswith("report/")}
    return Left(kept, left.documents)


def test_a_limit_on_the_size_of_files(place: Place, undisturbed: Place) -> None:
    said = place.fail(through=("sh", "-c", 'ulimit -f 30; exec "$@"', "sh"))
    assert "File too large; raise the limit on the size of files (ulimit -f), and run again" in said
    assert _visible(place) == {}
    place.run()
    assert place.left().unlike(undisturbed.left()) == []


def test_a_directory_that_can_only_be_read(place: Place, undisturbed: Place, disk: _Disk) -> None:
    place.run("--end", HALF)
    before = _visible(place)
    disk.allow(writing=False)
    said = place.fail()
    assert "cannot be used for timeline: Read-only file system; let this user write there, or name another" in said
    assert _visible(place) == before
    disk.allow(writing=True)
    place.run()
    assert place.left().unlike(undisturbed.left()) == []


def test_a_directory_of_somebody_else(place: Place, undisturbed: Place) -> None:
    """A user who may not write there; root may everywhere, and becomes another one for this."""
    through: list[str] = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("NO SETPRIV HERE, NOT TESTED AS ANOTHER USER")
        through = ["setpriv", "--reuid=65534", "--clear-groups", "--"]
        temporary = Path(tempfile.gettempdir())
        for folder in {place.folder, *place.folder.parents, *undisturbed.folder.parents}:
            if temporary in folder.parents:
                folder.chmod(folder.stat().st_mode | 0o055)
    place.out.mkdir()
    place.out.chmod(0o555)
    said = place.fail(through=through)
    assert "out: cannot be used for output: Permission denied; let this user write there" in said
    place.out.chmod(0o755)
    place.run()
    assert place.left().unlike(undisturbed.left()) == []
