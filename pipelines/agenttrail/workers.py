"""Workers of a run that die: Beam's runner waits for them for ever, so somebody else must look."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agenttrail.errors import AgentTrailError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDED = re.compile(r"Worker subprocess exited with return code (-?\d+)")
"""What Beam says in the thread that waits for a worker, where nobody hears it."""
_CUT_OFF = ("Channel closed prematurely", "StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
"""What Beam says where it was waiting for data of a worker that is gone."""
_SHELL = 128
"""A shell tells of a signal that ended its program by this and the signal's number."""
_WAKE = getattr(signal, "SIGUSR1", None)
"""Wakes the main thread; not SIGINT, which whatever runs in the background of a shell ignores.  Windows has none."""
_PROGRAM = b"apache_beam.runners.worker.sdk_worker_main"
"""What the command line of a worker holds."""
_AGAIN = 0.1  # seconds between two looks for workers that are left
_ENDING: list[threading.Event] = []
"""Set once workers of a run that failed are not to be ended any more: there is another run."""


@contextmanager
def watched() -> Iterator[None]:
    """Let a run end with a sentence when one of its workers does.

    The thread that waits for a worker ends with an error when that worker fails, and the one that runs the job waits
    on: it is woken by a signal.  Off the main thread, which alone hears signals, nothing is watched.

    Raises:
        WorkerError: a worker has ended before its work was done.
    """
    if _WAKE is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    while _ENDING:
        _ENDING.pop().set()
    codes: list[int] = []
    hook, main = threading.excepthook, threading.get_ident()

    def hear(failed: threading.ExceptHookArgs) -> None:
        found = _ENDED.search(str(failed.exc_value))
        if found is None:
            hook(failed)
            return
        codes.append(int(found[1]))
        if len(codes) == 1:
            _ENDING.append(threading.Event())
            threading.Thread(target=_end_others, args=(_ENDING[-1],), daemon=True).start()
            signal.pthread_kill(main, _WAKE)

    def wake(*_: object) -> None:
        signal.signal(_WAKE, signal.SIG_IGN)
        raise WorkerError(_sentence(codes))

    handler = signal.signal(_WAKE, wake)
    threading.excepthook = hear
    try:
        yield
    except AgentTrailError:
        raise
    except Exception as error:
        if codes or any(text in str(error) for text in _CUT_OFF):
            raise WorkerError(_sentence(codes)) from error
        raise
    finally:
        threading.excepthook = hook
        signal.signal(_WAKE, handler)


def _end_others(over: threading.Event) -> None:
    """End the workers that are left, and those that are still being started, until ``over`` is set.

    One that waits for a job that is over would be waited for in turn, also while this process comes to its end.
    """
    while True:
        for pid in list(children_of(os.getpid())):
            with suppress(OSError):  # gone already
                if _PROGRAM in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        if over.wait(_AGAIN):
            return


def children_of(pid: int) -> Iterator[int]:
    """Give the processes that a process started, those first that these started; none where there is no /proc."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield from children_of(child)
                yield child


def _sentence(codes: list[int]) -> str:
    code = codes[0] if codes else 0
    number = code - _SHELL if code > _SHELL else -code
    how = f" by signal {number}" if 0 < number < signal.NSIG else ""
    return (
        f"a worker of the run was ended{how} before its work was done; the output of earlier runs is as it was: "
        "look whether the machine ran out of memory (journalctl -k), give --direct_num_workers fewer, and run again"
    )
