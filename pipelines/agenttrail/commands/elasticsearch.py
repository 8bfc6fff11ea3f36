"""``agenttrail elasticsearch``: prepare an Elasticsearch, and read incidents from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    subparsers.add_parser("elasticsearch", help="prepare an Elasticsearch for incidents")
