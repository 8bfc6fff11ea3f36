"""The exception tree, on one screen."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST = 400


class AgentTrailError(Exception):
    """Base of every error that a user can cause or mend; its text is what the user reads."""

    exit_status = 1
    event = "run_failed"  # what programs read that it is


def shortened(text: str, most: int = _LONGEST) -> str:
    """Return ``text`` with its middle left out where it is long: messages repeat what stands in files."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} […{len(text) - most // 2 * 2:,} characters…] {text[len(text) - most // 2 :]}"


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a file that a user wrote.

    Attributes:
        path: file, as the user named it.
        line: 1-based line, 0 where the file as a whole is meant.
        what: what is wrong.
        hint: a name the user may have meant, or "".
    """

    path: str
    line: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        """Return ``path:line: what; did you mean …``."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {shortened(self.what)}" + (f"; did you mean {shortened(self.hint)}?" if self.hint else "")


class DefinitionError(AgentTrailError):
    """A job, rule, list or log-source file is wrong; carries every problem found, not the first."""

    exit_status = 2

    def __init__(self, problems: list[Problem]) -> None:
        """Keep ``problems`` sorted by place, without repeats."""
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[list[Problem]]]:
        """Pickle by the problems, not by the text."""
        return type(self), (self.problems,)


class InputError(AgentTrailError):
    """An input file cannot be read as a whole: its path and position, and what is wrong there."""


class AccountingError(AgentTrailError):
    """The books of a run do not balance: a line read is neither event, nor skip, nor dead letter."""


class SinkError(AgentTrailError):
    """Output cannot be written, after every retry that made sense; says what to do."""


class WorkerError(AgentTrailError):
    """A worker process ended before its work was done; says what to do."""
