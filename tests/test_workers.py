"""Workers of a run that failed are ended, whenever they come about."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from agenttrail.errors import WorkerError
from agenttrail.workers import _end_others, watched

_WORKER = [sys.executable, "-c", "import time; time.sleep(60)", "apache_beam.runners.worker.sdk_worker_main"]


def test_a_worker_that_is_started_once_another_has_died_is_ended_too() -> None:
    over = threading.Event()
    thread = threading.Thread(target=_end_others, args=(over,), daemon=True)
    thread.start()
    try:
        time.sleep(0.3)  # those that there were have been ended
        with subprocess.Popen(_WORKER) as late:
            assert late.wait(20) == -signal.SIGKILL
    finally:
        over.set()
    thread.join(20)
    assert not thread.is_alive()


def _fail() -> None:
    raise RuntimeError("Worker subprocess exited with return code 137")  # noqa: EM101, TRY003 - as Beam says it


def _failed_run() -> None:
    with watched():
        threading.Thread(target=_fail).start()
        time.sleep(20)


def test_another_run_keeps_its_workers() -> None:
    """After one that failed in the same process."""
    before = set(threading.enumerate())
    with pytest.raises(WorkerError, match="by signal 9"):
        _failed_run()
    (ending,) = set(threading.enumerate()) - before
    with watched():
        ending.join(20)
        assert not ending.is_alive()
