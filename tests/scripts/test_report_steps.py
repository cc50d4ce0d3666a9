"""The runs step by step, in a real browser: drawn, no wider than the window, and answering the slider and the legend."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training import GainRamp, Run, digits
from kappa_rtl.scripts.experiments.cosim import steps
from kappa_rtl.scripts.experiments.cosim.history import RunHistory
from kappa_rtl.scripts.experiments.cosim.page import write_report
from kappa_rtl.scripts.experiments.cosim.steps import CURVES, TRAIL, steps_page
from support.browser import fits, opened, wrong

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

STEPS = 40
TITLE = "A run of </script> & co"


def simulate() -> dict[str, RunHistory]:
    problem = digits()
    config = ThrottleConfig.stability_margin(elements=problem.elements, eta=0.1)
    narrow = config.replace(weight="SQ2.6", gradient="SQ2.10", update="SQ1.6", residual_bits=4)
    zeros = np.zeros(problem.elements)
    units: dict[str, tuple[str, Any, Any]] = {
        "float": ("float", "throttled", FloatThrottle(config, zeros)),
        "golden": ("golden model", "golden", Throttle(config, zeros)),
        "narrow": ("8 bits", "narrow", Throttle(narrow, zeros)),
    }
    ramp = GainRamp(first=5, last=30)
    return {
        name: RunHistory.collect(title, kind, Run(problem, unit, steps=STEPS, gain=ramp))
        for name, (title, kind, unit) in units.items()
    }


@pytest.fixture(scope="module")
def runs() -> dict[str, RunHistory]:
    return simulate()


@pytest.fixture(scope="module")
def page(runs: dict[str, RunHistory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("steps") / "steps.html"
    made.write_text(steps_page(TITLE, runs))
    return made


def rows_of(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(text.split("const steps = ")[1].split(", curves = ")[0])
    return found


def test_the_data_are_the_runs(page: Path, runs: dict[str, RunHistory]) -> None:
    rows = rows_of(page.read_text())
    assert len(rows) == 3 * STEPS
    for run in runs.values():
        own = [row for row in rows if row["run"] == run.title]
        assert [row["step"] for row in own] == list(range(STEPS))
        for name in ("loss", "alpha"):
            assert [row[name] for row in own] == pytest.approx(run[name].tolist(), rel=1e-4)
        if run.kind != "throttled":
            far = [np.hypot(row["x"], row["y"]) for row in own if row["x"] is not None]
            assert far == pytest.approx([min(4, r) for r in run["radius_ratio"] if np.isfinite(r)], abs=1e-3)
        else:
            assert "x" not in own[0]


def test_a_long_run_is_thinned_and_says_so(runs: dict[str, RunHistory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHOWN", 15)
    text = steps_page("x", runs)
    assert "One step of 3 is drawn" in text
    assert [row["step"] for row in rows_of(text) if row["run"] == "float"] == list(range(0, STEPS, 3))


def test_without_a_unit_in_fixed_point_there_is_no_polar_plot(runs: dict[str, RunHistory]) -> None:
    text = steps_page("x", {"float": runs["float"]})
    assert '<div id="polar">' not in text and "polar = null" in text


@pytest.mark.parametrize("width", [1440, 390])
def test_it_is_drawn_and_no_wider_than_the_window(width: int, page: Path, browser: Any) -> None:
    opened(browser, page, width)
    assert browser.title == f"{TITLE}, step by step"
    assert fits(browser) and not wrong(browser)
    assert len(browser.find_elements("css selector", "#curves g.mark-line.role-mark")) >= len(CURVES)
    polar = browser.find_element("css selector", "#polar svg").rect
    assert polar["width"] > 200


def at(browser: Any) -> list[Any]:
    """The dots of the step that the slider is at."""
    dots = browser.find_elements("css selector", "#polar g.mark-symbol.role-mark path[aria-label*='length']")
    return [dot for dot in dots if dot.get_attribute("opacity") == "1"]


def test_the_slider_goes_through_the_steps(page: Path, browser: Any) -> None:
    opened(browser, page, 1440)
    slider = browser.find_element("css selector", "#polar input[type=range]")
    labels = []
    for step in (3, 30):
        browser.execute_script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, step)
        shown = [dot.get_attribute("aria-label") for dot in at(browser)]
        assert len(shown) == 2 and all(f"step: {step};" in label for label in shown)
        every = browser.find_elements("css selector", "#polar g.mark-symbol.role-mark path[aria-label*='length']")
        assert len(every) == 2 * min(step + 1, TRAIL)
        labels.append(shown)
    assert labels[0] != labels[1]


def test_a_click_on_a_name_leaves_the_others_pale(page: Path, browser: Any) -> None:
    from selenium.webdriver import ActionChains

    opened(browser, page, 1440)
    name = browser.find_element("xpath", "//div[@id='curves']//*[local-name()='text' and text()='golden model']")
    ActionChains(browser).move_to_element(name).click().perform()
    lines = browser.find_elements("css selector", "#curves g.mark-line.role-mark path")
    assert {line.get_attribute("opacity") for line in lines} == {"0.95", "0.08"}


def test_a_report_without_altair_says_what_it_lacks(
    runs: dict[str, RunHistory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = dict.fromkeys(("title", "experiment", "simulator", "command", "config_toml"), "x")
    told |= {"steps": STEPS, "differences": 0, "compared": 1, "verdict": [], "files": []}
    monkeypatch.setitem(sys.modules, "altair", None)
    (tmp_path / "steps.html").write_text("of an earlier run")
    write_report(tmp_path, told, {"float": runs["float"]})
    text = (tmp_path / "index.html").read_text()
    assert "No steps.html, in which curves can be zoomed: the page must have Altair" in text
    assert not (tmp_path / "steps.html").exists()
