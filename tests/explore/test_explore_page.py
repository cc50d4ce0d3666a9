"""The page in a real browser: drawn, no wider than the window, and answering clicks and boxes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kappa_rtl.scripts.experiments.explore.found import COSTS
from kappa_rtl.scripts.main import main
from support.browser import fits, opened, wrong

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

SPACE = """
[training]
steps = 40
[explore]
weight = [4, 8, 12]
rounding = ["nearest", "residual:4"]
lanes = [1, 8]
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explore")
    (folder / "space.toml").write_text(SPACE)
    made = CliRunner().invoke(
        main,
        [
            "explore",
            str(folder / "space.toml"),
            "--out",
            str(folder),
            "--seeds",
            "2",
            "--within",
            "1",
            "--probability",
            ".6",
            "--jobs",
            "1",
        ],
    )
    assert made.exit_code == 0, made.output
    assert (folder / "unit.toml").exists() and "the least: 4 bits" in made.output
    return folder / "index.html"


def dots(browser: Any) -> list[Any]:
    """The points; what is drawn behind a hopeless one is black and no point."""
    found = browser.find_elements("css selector", "#scatters g.mark-symbol.role-mark path")
    return [one for one in found if one.is_displayed() and one.get_attribute("fill") != "#000000"]


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_is_drawn_and_no_wider_than_the_window(width: int, page: Path, browser: Any) -> None:
    opened(browser, page, width)
    assert fits(browser)
    charts_of = [browser.find_element("css selector", f"#{name} svg").rect for name in ("scatters", "curves")]
    assert all(0 < one["width"] <= width and one["height"] > 150 for one in charts_of)
    assert len(dots(browser)) == 12 * len(COSTS)  # those of one lane
    assert not wrong(browser)


def test_a_click_shows_the_point_its_curves_and_its_unit(page: Path, browser: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, page, 1440)
    title = browser.find_element("id", "chosen-title")
    before = title.text
    seen = {before}
    for dot in dots(browser)[:12]:
        ActionChains(browser).move_to_element(dot).click().perform()
        seen.add(title.text)
        if len(seen) > 2:
            break
    assert len(seen) > 2
    WebDriverWait(browser, 10).until(lambda one: one.find_elements("css selector", "#curves g.mark-line path"))
    toml = browser.find_element("id", "chosen-toml").text
    weight = re.search(r'weight = "([^"]+)"', toml)
    assert weight is not None and weight[1] in title.text


def test_a_box_marks_the_same_points_in_every_chart(page: Path, browser: Any) -> None:
    from selenium.webdriver import ActionChains

    opened(browser, page, 1440)
    assert {dot.get_attribute("opacity") for dot in dots(browser)} == {"0.9"}
    drag = ActionChains(browser).move_to_element(dots(browser)[0]).move_by_offset(-12, -12).click_and_hold()
    drag.move_by_offset(24, 24).release().perform()
    marked = [dot.get_attribute("opacity") == "0.9" for dot in dots(browser)]
    third = len(marked) // len(COSTS)
    parts = [marked[start : start + third] for start in range(0, len(marked), third)]
    assert 0 < sum(parts[0]) < third
    assert all(part == parts[0] for part in parts)


def test_other_lanes_are_shown_when_asked_for(page: Path, browser: Any) -> None:
    opened(browser, page, 1440)
    labels = [dot.get_attribute("aria-label") for dot in dots(browser)]
    (eight,) = browser.find_elements("css selector", '#scatters input[type="radio"][value="8"]')
    eight.click()
    assert [dot.get_attribute("aria-label") for dot in dots(browser)] != labels


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    before, _, after = page.read_text().partition("<script>")
    library, _, rest = after.partition("</script>")
    assert len(library) < 1_500_000 and len(before) + len(rest) < 500_000
    assert not re.findall(r"\b(?:src|href)\s*=|https?:(?!//vega.github.io/schema/)", before + rest)


def test_no_text_ends_a_script(page: Path) -> None:
    text = page.read_text()
    assert text.count("<script>") == text.count("</script>") == 2
    rows = json.loads(text.split("const rows = ")[1].split(", reference = ")[0])
    assert len(rows) == 12 * 2


def test_without_what_draws_it_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("altair", "Altair"), ("vl_convert", "vl-convert-python")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            made = CliRunner().invoke(main, ["explore", "--out", str(tmp_path / "out")])
        assert made.exit_code == 1
        assert f'Error: the page must have {name}: pip install "kappa-rtl[explore]"' in made.output
        assert not (tmp_path / "out").exists()
