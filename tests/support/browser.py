"""Pages in a real browser, without a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Selenium; skips where they are not installed, or do not start."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        made = webdriver.Chrome(options=options, service=webdriver.chrome.service.Service(driver))
    except Exception as error:  # such as in a container that lets it start no process
        pytest.skip(f"chromium does not start here: {str(error).splitlines()[0]}")
    yield made
    made.quit()


def opened(browser: Any, page: Path, width: int) -> None:
    """Show a page in a window of so many pixels, and wait until it is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda one: one.execute_script("return document.body.dataset.drawn") == "yes")


def fits(browser: Any) -> bool:
    """Whether nothing is wider than the window."""
    answer = browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    return bool(answer)


def wrong(browser: Any) -> list[str]:
    """What the browser complains of."""
    return [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
