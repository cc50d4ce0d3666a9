"""What a notebook shows of configurations, histories and outcomes, and their data frames."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.tables import html
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training import Run
from kappa_rtl.golden.training.history import FitHistory, History
from kappa_rtl.scripts.experiments.cosim.history import RunHistory
from kappa_rtl.scripts.experiments.cosim.run import Outcome

EVIL = "<b onclick=alert(1)>&amp;"


class Table(HTMLParser):
    """The cells of a table, row by row, and its caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.caption, self.rows, self._open = "", [[]], ""
        self.feed(text)
        self.rows = [row for row in self.rows if row]

    rows: list[list[str]]

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._open = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "caption":
            self.caption += data
        elif self._open in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def run() -> RunHistory:
    problem = synthetic()
    config = ThrottleConfig.stability_margin(elements=8, eta=0.5)
    return RunHistory.collect(EVIL, "golden", Run(problem, Throttle(config, np.zeros(8)), steps=4))


def test_text_is_escaped_and_short_rows_are_filled() -> None:
    table = Table(html(EVIL, ["a", EVIL], [[EVIL], [1, 2]]))
    assert (table.caption, table.rows) == (EVIL, [["a", EVIL], [EVIL, ""], ["1", "2"]])
    assert table.tags == {"table", "caption", "tr", "th", "td"}


def test_configuration() -> None:
    config = ThrottleConfig.stability_margin(elements=8, eta=0.5, chi=1.25)
    table = Table(config._repr_html_())
    assert dict(table.rows[1:]) == {name: str(value) for name, value in config.to_table().items()}  # type: ignore[arg-type]
    assert dict(table.rows)["chi"] == "1.25"  # type: ignore[arg-type]


def test_history() -> None:
    history = FitHistory({"loss": [3, np.nan, 1], EVIL: [0, 0, 2]}, layers={"dense0": {"angle": [1, 2, 3]}})
    table = Table(history._repr_html_())
    assert table.caption == "FitHistory: 3 steps, 2 columns, 1 layers, diverged at step 1"
    assert table.rows == [
        ["metric", "first", "last", "least", "most"], ["loss", "3", "1", "1", "3"], [EVIL, "0", "2", "0", "2"],
    ]  # fmt: skip
    assert Table(FitHistory()._repr_html_()).rows == [table.rows[0]]
    assert Table(FitHistory(loss=[np.nan])._repr_html_()).rows[1] == ["loss", "", "", "", ""]


def test_run_and_outcome(run: RunHistory) -> None:
    table = Table(run._repr_html_())
    assert table.caption == f"{EVIL} (golden)"
    assert [row[0] for row in table.rows[1:]] == list(run.columns)
    table = Table(Outcome(runs={"golden": run}, compared=7, compared_steps=4)._repr_html_())
    assert table.caption == "Golden and RTL agree: 0 differences in 7 values over 4 steps."
    assert table.rows[1][:2] == [EVIL, "4"] and table.rows[1][3] == "–"


def test_frames(run: RunHistory) -> None:
    history = FitHistory({"loss": [3, 2]}, layers={"dense0": {"angle": [1, 2]}})
    frame = history.to_frame()
    assert list(frame.columns) == ["loss", "dense0/angle"] and frame.index.name == "step" and frame.shape == (2, 2)
    assert frame["loss"].tolist() == [3, 2]
    assert run.to_frame()["alpha_applied"].tolist() == run["alpha_applied"].tolist()
    assert FitHistory().to_frame().shape == (0, 0)


def test_a_history_keeps_its_kind(run: RunHistory, tmp_path: object) -> None:
    path = f"{tmp_path}/run.npz"
    assert History.load(run.history.save(path)) == run.history
    with pytest.raises(ValueError, match=r"format must be 'kappa_rtl.FitHistory/1', not 'kappa_rtl.History/1'"):
        FitHistory.load(path)
