"""The folder of a report: pages are made beside it and put in place together."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from apache_beam.io.filesystems import FileSystems

from agenttrail.errors import SinkError
from agenttrail.sinks.files import PARTS, is_local, join, remove, write

if TYPE_CHECKING:
    from collections.abc import Sequence

INDEX = "index.html"
_PAGE = re.compile(r"index\.html|(incident|agent)-[0-9a-z]{32}\.html")


def is_page(name: str) -> bool:
    """Tell whether a file of that name in the folder of a report is one of its pages."""
    return bool(_PAGE.fullmatch(name))


def stage(folder: str) -> None:
    """Make a folder ready for new pages: away with what a killed run left.

    Raises:
        SinkError: it cannot be used.
    """
    parts = join(folder, PARTS)
    try:
        if FileSystems.exists(parts) or (is_local(parts) and Path(parts).is_symlink()):
            remove([parts])
        FileSystems.mkdirs(parts)
    except Exception as error:  # every file system has errors of its own
        msg = f"{folder}: cannot be used for the report: {error}; check that it is a folder and writable"
        raise SinkError(msg) from error


def write_page(folder: str, name: str, page: bytes) -> None:
    """Write a page beside those in place.

    Raises:
        SinkError: it cannot be written.
    """
    write(join(folder, PARTS, name), page)


def put_in_place(folder: str, names: Sequence[str]) -> None:
    """Let the written pages take the place of all pages that are there; other files in the folder stay.

    Args:
        folder: of the report.
        names: of the pages, in the order in which they are put in place.

    Raises:
        SinkError: one cannot be.
    """
    try:
        earlier = _pages(folder)
        stale = [join(folder, name) for name in earlier if name not in names or not is_local(folder)]
        if not is_local(folder):  # there, nothing takes the place of what exists
            remove(stale)
        if names:
            FileSystems.rename([join(folder, PARTS, name) for name in names], [join(folder, name) for name in names])
        if is_local(folder):
            remove(stale)
        if FileSystems.exists(join(folder, PARTS)):
            remove([join(folder, PARTS)])
    except Exception as error:  # every file system has errors of its own
        msg = f"{folder}: the report cannot be put in place: {error}"
        raise SinkError(msg) from error


def _pages(folder: str) -> list[str]:
    if not FileSystems.exists(folder):
        return []
    found = FileSystems.match([join(glob.escape(folder), "*.html")])[0].metadata_list
    return [name for name in (file.path.rsplit("/", 1)[-1] for file in found) if is_page(name)]
