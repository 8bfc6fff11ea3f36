"""The options that Beam knows."""

from __future__ import annotations

import argparse

from apache_beam.options.pipeline_options import PipelineOptions


def known_options() -> frozenset[str]:
    """Return every option of every part of Beam that is installed, with its dashes."""
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for part in PipelineOptions.__subclasses__():
        if "_add_argparse_args" in part.__dict__:
            part._add_argparse_args(parser)  # noqa: SLF001 - the only place where Beam lists them
    return frozenset(option for action in parser._actions for option in action.option_strings)  # noqa: SLF001
