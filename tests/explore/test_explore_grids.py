"""The axis of grids: a binary point for every tensor, its calibration, its unit, its costs, and what the page says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl import ThrottleConfig
from kappa_rtl.hw.synth.estimate import estimate
from kappa_rtl.scripts.experiments.explore.calibration import Calibration, Tensor, bits
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.point import OFF, Point
from kappa_rtl.scripts.experiments.explore.run import explore
from kappa_rtl.scripts.experiments.explore.space import TRAINED, Axes, Integers, floats, point_of
from kappa_rtl.scripts.settings import Settings

TABLES: dict[str, Any] = {
    "model": {"hidden": [12], "bias": True},
    "training": {"steps": 40, "batch": 32},
    "throttle": {"eta": 0.1},
}
NAMES = ["dense0/kernel", "dense0/bias", "dense1/kernel", "dense1/bias"]
INTEGERS = Integers(1, 3, 0, scales=(1, 3, 0, 3))


def network(**more: Any) -> Network:
    return Network.of(Settings(tables=TABLES | more))


def choice(**given: Any) -> dict[str, Any]:
    axes = Axes(**{name: (value,) for name, value in ({"law": "stability_margin", "grids": "tensor"} | given).items()})
    return {name: getattr(axes, name)[0] for name in TRAINED}


def test_a_point_with_scales_is_read_back_and_others_are_what_they_were() -> None:
    one, tensor = (point_of(choice(weight=8), integers) for integers in (INTEGERS._replace(scales=()), INTEGERS))
    assert tensor.scales == (1, 3, 0, 3) and Point.of_table(tensor.to_table()) == tensor
    assert "scales" not in one.to_table() and Point.of_table(one.to_table()) == one
    assert tensor.id != one.id and "tensors finer by 1 3 0 3" in str(tensor)
    assert one.motion == "applied" and tensor.motion == "intended"  # coarse tensors that stand still are no measure
    assert point_of(choice(weight=8, motion="applied"), INTEGERS).motion == "applied"
    assert point_of(choice(weight=8), INTEGERS._replace(scales=(0, 0, 0, 0))) == one, "where none is finer it is one grid"
    with pytest.raises(ValueError, match=r"^grids must be one with delay = 1, whose unit has no table of segments, not tensor$"):
        point_of(choice(weight=8, delay=1), INTEGERS)


def test_the_binary_points_are_those_of_the_float_run() -> None:
    """Of every tensor: what it reaches is within the rails of its grids, and the widest one's are no wider than that."""
    subject = network()
    found = subject.calibrate(floats(Axes()))
    steps: list[Any] = []
    subject.train(found.point, subject.seed, steps.append)
    assert [(one.name, one.elements) for one in found.tensors] == list(subject.tensors)
    assert [name for name, _ in subject.tensors] == NAMES and subject.elements == 64 * 12 + 12 + 12 * 10 + 10
    place = 0
    for one in found.tensors:
        part = slice(place, place + one.elements)
        place = part.stop
        assert one.weight == max(np.abs(step.theta_after[part]).max() for step in steps)
        assert one.update == max(np.abs((step.theta_after - step.theta)[part]).max() for step in steps)
        assert one.gradient == max(np.quantile(np.abs(step.gradient[part]), 0.999) for step in steps)
    apart = found.apart
    assert apart.weight == found.integers.weight and 0 in apart.scales and max(apart.scales) > 0
    for kind in ("weight", "gradient", "update"):
        most = [bits(getattr(one, kind)) + scale for one, scale in zip(found.tensors, apart.scales, strict=True)]
        assert max(most) == getattr(apart, kind)


def test_what_never_moves_reaches_nothing() -> None:
    tensors = (Tensor("a", 3, 0.9, 2.0**-20, 2.0**-22), Tensor("b", 2, 0.0, 0.0, 0.0), Tensor("c", 2, 2.0**-9, 0.0, 0.0))
    found = Calibration(floats(Axes())[0], 0.9, 2.0**-20, 2.0**-22, None, tensors)
    assert found.apart == Integers(1, -19, -21, scales=(0, 7, 7))


def test_the_unit_has_a_segment_for_every_tensor() -> None:
    subject, point = network(), point_of(choice(weight=8), INTEGERS)
    config = subject.config(point, lanes=4)
    assert [(one.name, one.scale) for one in config.segments] == list(zip(NAMES, INTEGERS.scales, strict=True))
    assert config.elements == subject.elements and str(config.weight) == "SQ1.7"
    assert subject.config(replace(point, scales=())) == config.replace(segments=(), entries=0, lanes=1, motion="intended")
    assert not subject.config(Point(weight="float", law=OFF)).segments


def test_many_tensors_share_segments() -> None:
    subject = network(model={"hidden": [2] * 40, "bias": True})
    count = len(subject.tensors)
    point = point_of(choice(weight=8), INTEGERS._replace(scales=(0,) * 70 + (2,) * (count - 70)))
    assert count == 82 and len(subject.config(point).segments) == 2


def test_a_run_is_on_the_grids_of_its_tensors() -> None:
    subject, point = network(), point_of(choice(weight=6), INTEGERS)
    steps: list[Any] = []
    result = subject.train(point, 0, steps.append)
    assert result["ending"] == "done" and len(steps) == 40
    theta, place = steps[-1].theta_after, 0
    for (_, size), scale in zip(subject.tensors, INTEGERS.scales, strict=True):
        scaled = theta[place : place + size] * 2.0 ** (5 + scale)
        place += size
        assert np.array_equal(scaled, np.rint(scaled)) and np.abs(scaled).max() <= 32
    assert (theta[: subject.tensors[0][1]] * 2.0**5 % 1).any(), "the kernel is on the finer grid"
    other = subject.train(replace(point, scales=()), 0)
    assert other["curve"]["loss"] != result["curve"]["loss"]


def test_a_search_has_both_and_the_answer_has_its_segments(tmp_path: Path) -> None:
    told: list[str] = []
    space = {"weight": 6, "rounding": ["residual:4"], "law": "stability_margin", "grids": ["one", "tensor"], "delay": [0, 1]}
    settings = Settings(tables=TABLES | {"explore": space})
    found = explore(settings, tmp_path, seeds=1, tell=told.append)
    assert any(line.startswith("a grid a tensor is finer by ") for line in told)
    assert any("1 combinations were left out" in line and "grids must be one with delay = 1" in line for line in told)
    assert sorted((row["grids"], bool(row["scales"]), row["delay"]) for row in found.rows if row["lanes"] == 1) == [
        ("one", False, 0),
        ("one", False, 1),
        ("tensor", True, 0),
    ]
    (tensor,) = (one for one in found.trained if one.point.scales)
    for row in found.rows:
        if row["grids"] == "tensor":
            config = found.config(tensor.point, row["lanes"])
            assert len(config.segments) == 4 and row["lut"] == estimate(config).lut and row["cycles"] == estimate(config).cycles
    page = found.page(within=1, probability=0.5)
    assert "A grid a tensor is finer by" in page and "A large dot has a grid a tensor" in page
    assert "a grid a tensor" in replace(found, trained=(tensor,)).text()
    best = replace(found, trained=(tensor,)).recommend(within=1, probability=0.6)
    assert best is not None and len(best.config.segments) == 4
    (tmp_path / "unit.toml").write_text(best.toml)
    assert ThrottleConfig.from_toml(tmp_path / "unit.toml") == best.config
    again: list[str] = []
    explore(settings, tmp_path, seeds=1, tell=again.append)
    assert any("were done before" in line for line in again)


def test_a_search_that_chooses_has_the_axis(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = {"weight": [6, 8, 10], "rounding": "residual:4", "law": "stability_margin", "grids": ["one", "tensor"]}
    found = explore(Settings(tables=TABLES | {"explore": space}), tmp_path, search=6, seeds=1, tell=lambda text: None)
    assert {bool(one.point.scales) for one in found.trained} == {False, True} and len(found.trained) == 6
