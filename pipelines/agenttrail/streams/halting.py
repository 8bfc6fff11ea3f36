"""Whether a stream is to end: asked for by a signal, or since a step has failed.

Sources look here, which are functions that a runner calls in this process; a runner told of a failed step alone would
let them go on.  In other processes nothing is ever asked for.
"""

from __future__ import annotations

import threading


class Halt:
    """What one process knows of the end of its stream."""

    def __init__(self) -> None:
        """Begin with a stream that goes on."""
        self._asked = threading.Event()
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Forget what was: a new stream begins."""
        self.error = None
        self._asked.clear()

    def ask(self) -> None:
        """Let sources end where they stand, so that what came is judged and written."""
        self._asked.set()

    def fail(self, error: BaseException) -> None:
        """Let sources end since a step has failed; the first error is kept."""
        self.over(error)
        self._asked.set()

    def over(self, error: BaseException) -> None:
        """Take note of what ended the stream, where nothing had."""
        if self.error is None:
            self.error = error

    @property
    def asked(self) -> bool:
        """Whether the stream is to end before its sources do."""
        return self._asked.is_set()


HALT = Halt()
"""Of this process, which runs one stream at a time."""
