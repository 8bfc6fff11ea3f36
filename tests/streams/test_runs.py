"""What libraries print by themselves while a stream runs."""

from __future__ import annotations

import re

import grpc
import pytest
from apache_beam.runners.worker import sdk_worker
from grpc import _server as grpc_server

from agenttrail.streams.halting import HALT
from agenttrail.streams.runs import _heard, _told


def _goes_on_after() -> None:
    """Do as gRPC's server does with what a call raised."""
    try:
        int("not ready")
    except ValueError:
        grpc_server.traceback.print_exc()


def test_what_a_server_fails_of_is_shown_unless_a_step_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    HALT.begin()
    try:
        with _heard():
            _goes_on_after()
            assert "ValueError: invalid" in capsys.readouterr().err
            HALT.fail(ValueError())
            _goes_on_after()
        _goes_on_after()
        assert capsys.readouterr().err == ""
    finally:
        HALT.begin()
    _goes_on_after()
    assert "ValueError: invalid" in capsys.readouterr().err


def _finds_the_runner_gone() -> BaseException:
    """Do as Beam's worker does with a bundle that asked for state of a runner that has been ended."""
    with grpc.insecure_channel("127.0.0.1:9") as channel:
        ask = channel.unary_unary("/none/none")
        try:
            try:
                ask(b"", timeout=5)
            except grpc.RpcError as error:
                raise RuntimeError(str(error) + " [while running 'a step']")  # noqa: B904 - as Beam does it
        except RuntimeError as error:
            sdk_worker.print("printed")
            return _told(error)
    raise AssertionError


def test_a_bundle_that_finds_the_runner_gone_is_not_shown_after_the_run_either(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its thread may come to know of it when the run has already said so."""
    with _heard():
        pass
    told = _finds_the_runner_gone()
    assert str(told).startswith("the runner of the stream was ended")
    assert capsys.readouterr().out == ""
    try:
        int("not ready")
    except ValueError:
        sdk_worker.print("printed")
        HALT.fail(ValueError())
        sdk_worker.print("not told twice")
    finally:
        HALT.begin()
    assert capsys.readouterr().out == "printed\n"


_GO = """Pipeline job-001 failed in state FAILED: panic in stage: runtime error: index out of range [3] with length 2
goroutine 181 [running]:
runtime/debug.Stack()
\t/usr/local/go/src/runtime/debug/stack.go:26 +0x5e
created by golang.org/x/sync/errgroup.(*Group).Go in goroutine 7
\t/root/go/pkg/mod/golang.org/x/sync@v0.23.0/errgroup/errgroup.go:78 +0x95
"""
_JAVA = """Pipeline failed.
java.lang.RuntimeException: outer
Caused by: java.io.IOException: No space left on device
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (_GO, r"panic in stage: runtime error: index out of range \[3\] with length 2; start again"),
        (_JAVA, r"gave up: java\.io\.IOException: No space left on device; start again"),
        (
            _GO.replace("length 2", "length 2, stage: &{ID:stage-037 transforms:[ref] sdf:true},stackTrace:", 1),
            r"panic in stage: runtime error: index out of range \[3\] with length 2; start again",
        ),
        (_GO.replace("panic in stage", "bad coder"), r"bad coder: runtime error: index out of range"),
        ("", "it does not say why"),
        ("a\x1b[2J", r"gave up: a\\u001b\[2J|gave up: a\\x1b"),
    ],
)
def test_why_a_runner_gave_up_is_told_in_one_line(text: str, cause: str) -> None:
    told = str(_told(RuntimeError(text)))
    assert re.search(cause, told), told
    assert "\n" not in told
    assert "\x1b" not in told
