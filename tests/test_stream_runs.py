"""What libraries print by themselves while a stream runs."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from grpc import _server as grpc_server

from agenttrail.halting import HALT
from agenttrail.stream_runs import _heard

if TYPE_CHECKING:
    import pytest


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
            assert capsys.readouterr().err == ""
    finally:
        HALT.begin()
    assert grpc_server.traceback is traceback
