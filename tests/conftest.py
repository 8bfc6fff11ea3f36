"""What all tests share: the services and how hard Hypothesis tries."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from agenttrail.streams.halting import HALT

pytest_plugins = ["tests.services.fixtures"]

settings.register_profile("suite", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("acceptance", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_runtest_setup() -> None:
    """Let no test see how the stream of another one in this process ended."""
    HALT.begin()
