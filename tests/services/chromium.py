"""A real Chromium for the tests, driven through WebDriver: the one on this machine, or else Debian's."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from tests.services.guarded import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = (("CHROMIUM", ("chromium", "chromium-browser", "google-chrome")), ("CHROMEDRIVER", ("chromedriver",)))
_PACKAGES = ("chromium", "chromium-driver")
_FONTS = "fonts-dejavu-core"
_INSTALL = 600  # seconds


@dataclass(frozen=True)
class Chromium:
    """Where the browser and its driver are."""

    browser: str
    driver: str

    def opened(self) -> Iterator[webdriver.Chrome]:
        """Yield one browser without a window, which tells of requests and of what pages complain about."""
        options = webdriver.ChromeOptions()
        options.binary_location = self.browser
        for flag in ("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"):
            options.add_argument(flag)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium refuses its sandbox to root
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        try:
            driver = webdriver.Chrome(options=options, service=Service(self.driver))
        except WebDriverException as error:
            message = f"it does not start: {error.msg}"
            raise UnavailableError(message) from error
        try:
            yield driver
        finally:
            driver.quit()


def obtain() -> Chromium:
    """Return the browser; installed first, where it is missing and this is root on a Debian.

    Raises:
        UnavailableError: there is none.
    """
    found = _found()
    if found is None:
        # one process at a time: apt holds a lock of its own, and does not wait for it
        with Path(tempfile.gettempdir(), "agenttrail-chromium.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _found()
            if found is None:
                _install()
                found = _found()
    if found is None:
        message = f"no chromium and chromedriver; install {' and '.join(_PACKAGES)}, or set CHROMIUM and CHROMEDRIVER"
        raise UnavailableError(message)
    return found


def _found() -> Chromium | None:
    paths = [
        os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None) for variable, names in _PROGRAMS
    ]
    return Chromium(str(paths[0]), str(paths[1])) if all(paths) else None


def _install() -> None:
    if os.geteuid() != 0 or not Path("/usr/bin/apt-get").exists():
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # lists that cannot be renewed may still do; whether they do shows when the packages are fetched
    for command, must in (
        (["update"], False),
        (["install", "-y", "--no-install-recommends", *_PACKAGES, _FONTS], True),
    ):
        try:
            apt: list[str] = ["/usr/bin/apt-get", "-q", *command]
            subprocess.run(apt, env=quiet, check=must, capture_output=True, timeout=_INSTALL)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            message = f"apt-get {command[0]} failed: {error} {said.decode(errors='replace')[-500:]}"
            raise UnavailableError(message) from error
