"""A headless Chromium for the tests of the page; tests that use it are skipped where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
LAPTOP, PHONE = (1280, 900), (390, 844)


def needed() -> tuple[Any, str, str]:
    """selenium, chromium and its driver; the test is skipped where one is absent."""
    selenium = pytest.importorskip("selenium.webdriver", reason="the tests of the page in a browser need selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("the tests of the page in a browser need chromium and chromedriver")
    return selenium, chromium, driver


@contextmanager
def browser(profile: Path, size: tuple[int, int] = LAPTOP, *, dark: bool = False) -> Iterator[Any]:
    """A driver whose windows have `size`; every request it makes over the network fails."""
    selenium, chromium, driver = needed()
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    # A proxy that does not exist: what asks for the network fails, and says so in the log.
    for flag in (
        *QUIET,
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
        "--proxy-server=127.0.0.1:9",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        # The narrowest window of a desktop is wider than a phone: the page is shown in the phone's size instead.
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        window.set_script_timeout(240)  # of a machine with other work
        yield window
    finally:
        window.quit()


def opened(window: Any, page: Path, most: float = 60.0) -> float:
    """Open a page and wait until it has drawn itself; the seconds that it took."""
    window.get("about:blank")
    window.get_log("performance")  # what the browser's own first page asked for
    began = time.perf_counter()
    window.get(page.resolve().as_uri())
    while window.execute_script("return document.body.dataset.ready") != "true":
        if time.perf_counter() - began > most:
            raise AssertionError([entry["message"] for entry in window.get_log("browser")])
        time.sleep(0.05)
    return time.perf_counter() - began
