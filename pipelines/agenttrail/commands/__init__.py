"""The commands, one file each; each adds its parser and says what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.commands import demo, elasticsearch, formats, incidents, rules, run, simulate

if TYPE_CHECKING:
    import argparse

_COMMANDS = (run, demo, simulate, rules, incidents, elasticsearch, formats)


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parsers of all commands."""
    for command in _COMMANDS:
        command.add(subparsers)
