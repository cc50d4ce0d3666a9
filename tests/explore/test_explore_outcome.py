"""What is made of the runs: rows, the front, the least widths; against plain counts."""

from __future__ import annotations

import csv
import html
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kappa_rtl import ThrottleConfig
from kappa_rtl.hw.synth.estimate import estimate
from kappa_rtl.hw.synth.synthesis import Figures
from kappa_rtl.hw.synth.targets import TARGETS, Cells
from kappa_rtl.scripts.experiments.explore import charts, measure
from kappa_rtl.scripts.experiments.explore.calibration import Calibration
from kappa_rtl.scripts.experiments.explore.found import COSTS, Found, Trained
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.outcome import Outcome
from kappa_rtl.scripts.experiments.explore.point import FLOAT, Point
from kappa_rtl.scripts.experiments.explore.recommend import recommend, succession
from kappa_rtl.scripts.experiments.explore.space import Axes
from kappa_rtl.scripts.settings import Settings

SUBJECT = Network.of(Settings(tables={"training": {"steps": 5}}))


def result(score: float, ending: str = "done") -> dict[str, Any]:
    rest = dict.fromkeys(("loss", "min_alpha", "median_alpha", "still", "radius", "angle", "saturated", "seconds"), 0.5)
    return rest | {
        "score": score,
        "ending": ending,
        "steps": 5,
        "curve": {"step": [0], "loss": [1.0], "alpha": [1.0], "curvature": [2.0]},
    }


def point(bits: int, rounding: str = "nearest", law: str = "stability_margin") -> Point:
    return Point(weight=f"SQ2.{bits - 2}", gradient="SQ2.10", update=f"SQ1.{bits - 2}", rounding=rounding, law=law)


def outcome(
    scores: dict[Point, list[float]], float_scores: list[float], lanes: tuple[int, ...] = (2,), **endings: str
) -> Outcome:
    off = Trained(Point(weight=FLOAT, law="off"), tuple(result(0.0, "diverged") for _ in float_scores))
    on = Trained(Point(weight=FLOAT), tuple(map(result, float_scores)))
    trained = [
        Trained(one, tuple(result(score, endings.get(one.weight[2:3], "done")) for score in some)) for one, some in scores.items()
    ]
    return Outcome.of(SUBJECT, Axes(lanes=lanes), Calibration(on.point, 1.0, 1.0, 1.0), [off, on, *trained])


SCORES = {
    point(8): [0.80, 0.90, 0.85],
    point(8, "residual:3"): [0.93, 0.94, 0.90],
    point(10): [0.93, 0.92, 0.91],
    point(12): [0.945, 0.95, 0.93],
    point(16): [0.94, 0.95, 0.93],
}


def test_a_target_with_its_clock() -> None:
    """Each target has its rows, and its own look-up tables; the clock is the one that is said."""
    found = outcome(SCORES, [0.94, 0.95, 0.93])
    found = replace(found, axes=Axes(lanes=(2,), target=("ecp5", "xilinx@200")))
    here, there = ([row for row in found.rows if row["target"] == name] for name in ("ecp5", "xilinx@200"))
    assert len(here) == len(there) == 5
    config = found.config(point(8), 2)
    row = next(row for row in there if row["weight"] == "SQ2.6" and not row["residual_bits"])
    cost = estimate(config, "xilinx", 200)
    assert (row["lut"], row["mhz"], row["step_seconds"]) == (cost.lut, 200, cost.cycles / 200e6)
    assert row["lut"] != estimate(config).lut and row["energy"] == estimate(config).energy
    assert found.front("lut", target="xilinx@200")[0]["target"] == "xilinx@200"


def test_rows_have_the_point_its_scores_and_what_its_unit_costs() -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.93], lanes=(1, 4))
    assert len(found.rows) == 5 * 2 == len(found.to_frame())
    row = next(row for row in found.rows if row["weight"] == "SQ2.6" and row["residual_bits"] and row["lanes"] == 4)
    assert (row["score"], row["least"], row["most"], row["ending"]) == (0.93, 0.90, 0.94, "done")
    assert row["distance"] == pytest.approx(0.01)
    config = ThrottleConfig.stability_margin(
        elements=640, eta=0.1, weight="SQ2.6", gradient="SQ2.10", update="SQ1.6", residual_bits=3, lanes=4, motion="applied"
    )
    assert found.config(point(8, "residual:3"), 4) == config
    assert row["memory_bits"] == 640 * (8 + 12 + 3) == estimate(config).memory_bits
    cost = estimate(config)
    assert (row["cycles"], row["lut"], row["step_seconds"]) == (cost.cycles, cost.lut, cost.step_seconds)
    assert row["bytes_a_step"] == 160 * 4 * (12 + 8 + 8) // 8


@pytest.mark.parametrize("cost", COSTS)
def test_the_front_is_what_nothing_cheaper_beats(cost: str) -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.93], lanes=(1, 4))
    front = found.front(cost)
    for row in found.rows:
        beaten = any(
            other[cost] <= row[cost]
            and other["score"] >= row["score"]
            and (other[cost], other["score"]) != (row[cost], row["score"])
            for other in found.rows
        )
        alike = any((one[cost], one["score"]) == (row[cost], row["score"]) for one in front)
        assert alike == (not beaten)
    assert all(a[cost] < b[cost] and a["score"] < b["score"] for a, b in itertools.pairwise(front))
    for lanes in (1, 4):
        own = [row for row in found.rows if row["lanes"] == lanes]
        least = min(own, key=lambda row: (row[cost], -row["score"]))
        assert found.front(cost, lanes=lanes)[0] == least and all(row["lanes"] == lanes for row in found.front(cost, lanes=lanes))
    with pytest.raises(ValueError, match="cost must be one of memory_bits, bytes_a_step, lut, step_seconds, energy, not 'luts'"):
        found.front("luts")


def test_a_loss_is_the_better_the_less_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome({point(8): [0.3], point(10): [0.2], point(12): [0.4]}, [0.19])
    monkeypatch.setattr(Found, "larger_is_better", False)
    _, on = found.references
    assert Outcome(SUBJECT, found.axes, found.calibration, (on,), found.trained).reference is on
    best = Outcome(SUBJECT, found.axes, found.calibration, (on,), found.trained)
    assert [row["weight"] for row in best.front()] == ["SQ2.6", "SQ2.8"]
    assert best.distances(best.trained[0]) == [pytest.approx(0.11)]
    chosen = recommend(best, within=0.05, probability=0.6)
    assert chosen is not None and chosen.trained.point == point(10)


def test_what_diverged_is_on_no_front_and_never_the_least() -> None:
    found = outcome({point(8): [0.94] * 3, point(12): [0.94] * 3}, [0.94] * 3, **{"2": "diverged"})
    assert found.trained[0].ending == "diverged" and found.front() == [] and recommend(found) is None


def test_the_worst_ending_of_the_seeds_is_the_points() -> None:
    def of(*endings: str) -> str:
        return Trained(point(8), tuple(result(0.5, ending) for ending in endings)).ending

    assert (of("done", "done"), of("done", "dead"), of("dead", "diverged", "done")) == ("done", "dead", "diverged")


def test_the_least_is_the_cheapest_that_is_near_float_on_the_same_seeds() -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.91])
    best = recommend(found, within=0.011)
    assert best is not None and best.trained.point == point(8, "residual:3")
    assert (best.good, best.seeds, best.probability) == (3, 3, 0.8)
    assert best.cost == ("memory_bits", 640 * 23)
    strict = recommend(found, within=0.005)
    assert strict is not None and strict.trained.point == point(12)
    dear = outcome(SCORES, [0.96, 0.96, 0.96])
    assert recommend(dear, within=0.005, probability=0.5) is None
    loose = recommend(found, within=0.05, probability=0.5)
    assert loose is not None and loose.trained.point == point(10)  # of 8 bits to nearest one seed of three is
    assert f"{best}" == (
        "8 bits: weights SQ2.6, G SQ2.10, y SQ1.6, residual:3, applied, stability_margin: within 0.011 of float in 3 of 3 seeds, "
        "the next one with a probability of 0.80; memory, bits: 14,720"
    )


def test_the_least_in_another_cost() -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.91])
    by_size = recommend(found, within=0.02, cost="lut")
    assert by_size is not None
    enough = [row for row in found.rows if row["weight"] != "SQ2.6" or row["residual_bits"]]
    assert by_size.cost[1] == min(row["lut"] for row in enough)


def test_the_units_file_is_the_unit(tmp_path: Path) -> None:
    best = recommend(outcome(SCORES, [0.94, 0.95, 0.91]), within=0.011)
    assert best is not None
    path = tmp_path / "unit.toml"
    path.write_text(best.toml)
    assert ThrottleConfig.from_toml(path) == best.config


@pytest.mark.parametrize(("good", "seeds", "is_"), [(0, 0, 1 / 2), (3, 3, 0.8), (8, 8, 0.9), (2, 3, 0.6), (0, 3, 0.2)])
def test_succession(good: int, seeds: int, is_: float) -> None:
    assert succession(good, seeds) == is_
    # the mean of p over p**good (1 - p)**bad, by sums
    bad = seeds - good
    weights = [(k / 1000) ** good * (1 - k / 1000) ** bad for k in range(1001)]
    assert sum(k / 1000 * w for k, w in enumerate(weights)) / sum(weights) == pytest.approx(is_, abs=2e-3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"within": -0.1}, "within must be at least 0, not -0.1"),
        ({"within": math.nan}, "within must be at least 0, not nan"),
        ({"probability": 1.0}, "probability must be between 0 and 1, not 1.0"),
        ({"cost": "luts"}, "cost must be one of memory_bits"),
        (
            {"probability": 0.9},
            "probability must be at most 0.8 with seeds = 3, which say no more, not 0.9; take at least 8 seeds",
        ),
        ({"probability": math.nan}, "probability must be between 0 and 1, not nan"),
    ],
)
def test_what_recommend_refuses(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        recommend(outcome(SCORES, [0.94, 0.95, 0.91]), **given)


def test_rows_as_files(tmp_path: Path) -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.91])
    with found.to_csv(tmp_path / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["weight"] for row in rows] == [row["weight"] for row in found.rows]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in found.rows]
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(found.to_parquet(tmp_path / "points.parquet"))
    assert frame["memory_bits"].tolist() == [row["memory_bits"] for row in found.rows]


def test_the_text_has_float_and_the_front() -> None:
    text = outcome(SCORES, [0.94, 0.95, 0.91]).text()
    assert "float, stability_margin" in text and "SQ2.6, residual:3, stability_margin" in text and "14,720" in text
    assert "SQ2.14" not in text  # dearer than 12 bits, and no better


def test_a_notebook_shows_the_page() -> None:
    pytest.importorskip("altair"), pytest.importorskip("vl_convert")
    found = outcome(SCORES, [0.94, 0.95, 0.91])
    shown = found._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;') and shown.endswith("</iframe>")
    assert html.unescape(shown.split('srcdoc="')[1].split('" width=')[0]) == found.page()
    assert str(found.recommend()) in html.unescape(found.page())


def test_what_was_measured_takes_the_place_of_what_was_estimated() -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.91], lanes=(1, 4))
    cells = Cells({"LUT4": 700, "CCU2C": 10, "TRELLIS_FF": 900, "MULT18X18D": 5, "DP16KD": 2}, TARGETS["ecp5"])
    figures = Figures("x", cells, "", (150.0,))
    one = found.trained[1].point
    made = replace(found, measured={(one.id, 4, "ecp5"): figures})
    row = next(row for row in made.rows if row["measured"])
    assert sum(row["measured"] for row in made.rows) == 1 and (row["point"], row["lanes"]) == (one.id, 4)
    assert (row["lut"], row["ff"], row["dsp"], row["block"], row["mhz"]) == (720, 900, 5, 2, 150.0)
    assert row["lut_estimated"] == estimate(found.config(one, 4)).lut
    assert row["step_seconds"] == row["cycles"] / 150e6
    unplaced = replace(found, measured={(one.id, 4, "ecp5"): replace(figures, fmax=())})
    row = next(row for row in unplaced.rows if row["measured"])
    assert row["step_seconds"] == estimate(found.config(one, 4)).step_seconds


@pytest.mark.parametrize(
    ("which", "says"),
    [("some", "synth must be one of none, front, all, not 'some'"), ("front", r"synth 'front' must have yosys: pip install")],
)
def test_what_cannot_be_measured_is_refused(which: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "tool", lambda name: None)
    measure.ready("none", ["ecp5"])
    with pytest.raises(ValueError, match=says):
        measure.ready(which, ["ecp5"])


@pytest.mark.slow
def test_the_units_on_the_front_are_synthesised_and_found_again(tmp_path: Path) -> None:
    measure.ready("front", ["ecp5"])
    found = outcome({point(8): [0.94] * 3, point(16): [0.90] * 3}, [0.94, 0.95, 0.91], lanes=(1,))
    made = measure.measured(found, "front", tmp_path)
    assert [key[0] for key in made] == [point(8).id]
    (figures,) = made.values()
    guess = found.rows[0]
    assert abs(figures.cells.size / guess["lut"] - 1) < 0.1 and figures.cells.dsp == guess["dsp"] and figures.fmax
    (path,) = (tmp_path / "synth").iterdir()
    before = path.read_text()
    assert measure.measured(found, "front", tmp_path)[next(iter(made))].fmax == figures.fmax
    assert path.read_text() == before
    path.write_text(before[:-50])  # cut off: it is made again
    assert measure.measured(found, "front", tmp_path)[next(iter(made))].cells.size == figures.cells.size


def test_the_unit_is_the_cheapest_with_the_fewest_lanes() -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.91], lanes=(8, 1))
    by_memory, by_time = recommend(found, within=0.011), recommend(found, within=0.011, cost="step_seconds")
    assert by_memory is not None and by_memory.config.lanes == 1
    assert by_time is not None and by_time.config.lanes == 8
    assert by_time.cost[1] == min(row["step_seconds"] for row in found.rows if row["point"] == by_time.trained.point.id)


def test_a_loss_that_is_not_finite_is_drawn_on_the_rail(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome({point(8): [math.inf], point(10): [0.2]}, [0.19], **{"2": "diverged"})
    monkeypatch.setattr(Found, "larger_is_better", False)
    best = Outcome(SUBJECT, found.axes, found.calibration, found.references[1:], found.trained)
    drawn = charts.rows(best)
    assert [row["score"] for row in drawn] == [0.2, 0.2] and drawn[0]["ending"] == "diverged"


def test_exactly_the_distance_is_within_it() -> None:
    found = outcome({point(8): [0.5, 0.5, 0.5]}, [0.75, 0.75, 0.75])
    best = recommend(found, within=0.25)
    assert best is not None and best.good == 3
    assert recommend(found, within=0.249) is None


@pytest.mark.parametrize("cost", COSTS)
def test_every_number_of_lanes_has_a_front_of_its_own_in_the_charts(cost: str) -> None:
    found = outcome(SCORES, [0.94, 0.95, 0.93], lanes=(1, 4))
    drawn = charts.rows(found)
    for lanes in (1, 4):
        on = {row["point"] for row in drawn if row["lanes"] == lanes and row[f"front_{cost}"]}
        assert on == {row["point"] for row in found.front(cost, lanes=lanes)} != set()


def test_every_law_has_a_shape_of_its_own_and_keeps_it_where_a_run_ends() -> None:
    """Twelve of them; a run that is dead or has diverged has a mark behind it."""
    laws = [("stability_margin", (("chi", 1 + number / 10),)) for number in range(12)]
    points = {replace(point(8), law=law, parameters=given): [0.9] for law, given in laws}
    found = outcome(points, [0.9], **{"3": "dead"})
    layers = charts.scatters(found)["concat"][0]["layer"]
    (dots,) = [layer for layer in layers if "shape" in layer.get("encoding", {})]
    scale = dots["encoding"]["shape"]["scale"]
    assert len(set(scale["domain"])) == len(set(scale["range"])) == 12 and dots is layers[-1]
    assert {layer["mark"].get("shape") for layer in layers if isinstance(layer["mark"], dict)} >= {"cross", "arrow"}
