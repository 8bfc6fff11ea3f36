"""A stream while it runs: it ends where its sources do, when it is told to, and when one of its steps fails.

Prism goes on when a step has failed, and waits for ever for one that has died: so somebody else must look.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.worker import sdk_worker
from apache_beam.utils import subprocess_server
from grpc import _server as grpc_server

from agenttrail.columns.text import printable
from agenttrail.errors import AgentTrailError, shortened
from agenttrail.streams.halting import HALT
from agenttrail.workers import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apache_beam as beam

_LOOK = 0.2  # seconds between two looks at a run
_GRACE = 5.0  # seconds for a runner to end by itself
_ASKING = 10.0  # seconds for a job server to answer
_PRISM = "prism"
_GONE = (
    "the runner of the stream was ended before its work was done: look whether the machine ran out of memory "
    "(journalctl -k), and start again with the same command"
)


_CAUSE, _PANIC = "Caused by: ", "panic"
_WHERE = ", stage: &{"  # what Prism knows of where it panicked, which is long and says nothing to a user


class StreamError(AgentTrailError):
    """A stream ended otherwise than by its end; says why."""

    event = "runner_failed"


def execute(pipeline: beam.Pipeline) -> None:
    """Run a pipeline to its end; SIGTERM, SIGINT and SIGHUP let its sources end where they stand.

    Raises:
        Exception: what a step raised, once the runner has been ended.
        StreamError: the runner failed.
    """
    _reach(pipeline.options.view_as(PortableOptions).job_endpoint)
    HALT.begin()
    told = logging.getLogger("PrismJobServer")  # what Prism prints, which Beam lets through whatever it is
    told.propagate = False
    told.addHandler(logging.NullHandler())
    before = set(children_of(os.getpid()))
    with _heard(), _apart(), _signals() as listen:
        result = pipeline.run()
        listen()  # the runner has put its own in their place
        ended = _Ended(result)
        try:
            while not ended.wait(_LOOK) and HALT.error is None:
                pass
            failed = HALT.error or ended.error
            if failed is not None:
                HALT.over(failed)  # what threads find of that from here on is not printed
        finally:
            _end_runner(set(children_of(os.getpid())) - before)
            ended.cancel()
            ended.wait(_GRACE)
    if failed is not None:
        raise _told(failed)


def _reach(endpoint: str | None) -> None:
    """Make sure that a job server answers: Beam would wait for it as long as for everything else."""
    if not endpoint or ":" not in endpoint:
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ASKING).close()
    except (OSError, ValueError) as error:
        msg = f"--job_endpoint {endpoint}: no job server answers there ({error}); start it, or leave both options out"
        raise StreamError(msg) from error


def _told(failed: BaseException) -> BaseException:
    """Return what a run failed of: what a step raised, or what the runner says, in one sentence."""
    gave_up = type(failed) is RuntimeError  # of Beam's, with the traces of two languages
    if type(failed).__module__.startswith("grpc") or (gave_up and _is_of_grpc(failed)):
        told = StreamError(_GONE)
    elif gave_up:
        told = StreamError(
            f"the runner of the stream gave up: {_cause(str(failed))}; start again with the same command"
        )
    else:
        return failed
    told.__cause__ = failed
    return told


def _cause(text: str) -> str:
    """Return the line of a runner's traces that says why: of Java the innermost cause, of Go what it panicked of."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not _is_frame(line)] or lines or ["it does not say why"]
    panics = [line for line in told if _PANIC in line]
    cause = (panics or told[::-1])[0].removeprefix(_CAUSE)
    return printable(shortened(cause.partition(_WHERE)[0]))


def _is_frame(line: str) -> bool:
    """Tell whether a line is one of Go's that say where something happened, and not what."""
    return ".go:" in line or line.startswith(("goroutine ", "created by ")) or (line.endswith(")") and " " not in line)


class _Ended:
    """Waits for the end of a run in a thread of its own: signals are heard by the main one only."""

    def __init__(self, result: Any) -> None:
        self.error: Exception | None = None
        self._result = result
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self._result.wait_until_finish()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self.error = error

    def cancel(self) -> None:
        """Let the runner give up a run that goes on, as a job server would let it."""
        if self._thread.is_alive():
            asking = threading.Thread(target=self._cancel, daemon=True)
            asking.start()
            asking.join(_ASKING)

    def _cancel(self) -> None:
        with suppress(Exception):  # a runner that is gone has given up, too
            self._result.cancel()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, and tell whether the run is over."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


@contextmanager
def _signals() -> Iterator[Any]:
    """Let SIGTERM and SIGINT ask for the end; gives a function that listens (again)."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    names = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's
        names.append(signal.SIGHUP)
    handlers = {name: signal.getsignal(name) for name in names}

    def heard(*_: object) -> None:
        if HALT.asked:  # a second time: at once
            raise KeyboardInterrupt
        HALT.ask()

    def listen() -> None:
        for name in names:
            signal.signal(name, heard)

    listen()
    try:
        yield listen
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


@contextmanager
def _apart() -> Iterator[None]:
    """Let Beam start a runner in a session of its own: Ctrl-C goes to every process of a terminal, this one drains."""
    theirs = ModuleType(subprocess.__name__)
    vars(theirs).update(vars(subprocess), Popen=partial(subprocess.Popen, start_new_session=True))
    subprocess_server.subprocess = theirs
    try:
        yield
    finally:
        subprocess_server.subprocess = subprocess


@contextmanager
def _heard() -> Iterator[None]:
    """Hear of steps that fail in this process, where Beam and gRPC print what they raised and go on.

    Once a run is over what still fails is printed, unless the run has: its threads may come to know of that long after.
    """

    def hear(*_: object, **__: object) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            HALT.fail(error)

    def show(*_: object, **__: object) -> None:
        if _is_news(sys.exc_info()[1]):
            traceback.print_exc()

    theirs = ModuleType(traceback.__name__)
    vars(theirs).update(vars(traceback), print_exc=show)
    sdk_worker.print, grpc_server.traceback = hear, theirs
    if threading.excepthook is not _quietly:
        threading.excepthook = _quietly
    try:
        yield
    finally:
        sdk_worker.print = _print


_HOOK = threading.excepthook


def _quietly(failed: threading.ExceptHookArgs) -> None:
    """Say what a thread of Beam's failed of, where that is not told already."""
    if _is_news(failed.exc_value):
        _HOOK(failed)


def _print(*texts: object, **options: Any) -> None:
    """Print, in the place of Beam's own, what a step raised, where that is not told already."""
    if _is_news(sys.exc_info()[1]):
        print(*texts, **options)  # noqa: T201 - as it would


def _is_news(error: BaseException | None) -> bool:
    """Tell whether an error is not just that the runner has been ended, or of a run that has said why it failed."""
    return HALT.error is None and not _is_of_grpc(error)


def _is_of_grpc(error: BaseException | None) -> bool:
    """Tell whether an error is one of gRPC's, or was raised for one."""
    while error is not None:
        if type(error).__module__.startswith("grpc"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_runner(started: set[int]) -> None:
    """End a Prism that this run started, whatever it is doing."""
    for pid in started:
        with suppress(OSError):
            if Path(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])).name == _PRISM:
                os.kill(pid, signal.SIGKILL)
