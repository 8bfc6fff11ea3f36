"""The options that Beam knows."""

from __future__ import annotations

import argparse

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner


def known_options() -> frozenset[str]:
    """Return every option of every part of Beam that is installed, with its dashes."""
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for part in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in part.__dict__:
            part._add_argparse_args(parser)  # noqa: SLF001 - the only place where Beam lists them
    return frozenset(option for action in parser._actions for option in action.option_strings)  # noqa: SLF001


def unusable_runner(flags: list[str]) -> str:
    """Return why the runner that options name cannot be had, or ""."""
    name = PipelineOptions(flags).view_as(StandardOptions).runner
    if name is None:
        return ""
    try:
        made = create_runner(name)
    except Exception as error:  # noqa: BLE001 - whatever the import of a module raises
        return f"--runner {name}: {' '.join(str(error).split())}"
    return "" if isinstance(made, PipelineRunner) else f"--runner {name}: no runner of Beam"
