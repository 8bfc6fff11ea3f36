"""What all tests share: the services and how hard Hypothesis tries."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from agenttrail.streams.halting import HALT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.services.fixtures"]

settings.register_profile("suite", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("acceptance", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_runtest_setup() -> None:
    """Let no test see how the stream of another one in this process ended."""
    HALT.begin()


@pytest.fixture
def hearing() -> Iterator[None]:
    """Let processes that are started hear SIGINT and SIGHUP, also in the background of a shell and under nohup."""
    ways: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {name: signal.signal(name, way) for name, way in ways.items()}
    yield
    for name, way in before.items():
        signal.signal(name, way)
