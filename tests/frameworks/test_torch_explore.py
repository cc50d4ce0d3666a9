"""A search over a model in torch: its points are throttles on the user's optimiser, and its float run has none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from kappa_rtl.frameworks.torch.subject import CALIBRATED, Entry  # noqa: E402
from kappa_rtl.scripts.experiments.explore.point import FLOAT, OFF, Point  # noqa: E402
from kappa_rtl.scripts.experiments.explore.run import explore  # noqa: E402
from kappa_rtl.scripts.main import main  # noqa: E402
from kappa_rtl.scripts.settings import Settings  # noqa: E402
from kappa_rtl.torch import GlobalThrottle, Task, calibrate  # noqa: E402

STEPS = 25


def task(seed: int) -> Task:
    """A regression by a small network."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 5, generator=generator)
    y = x @ torch.randn(5, 2, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    half = torch.arange(0, 64, 2)

    def loss(step: int) -> Any:
        rows = half if step % 2 else half + 1
        return ((model(x[rows]) - y[rows]) ** 2).mean()

    return Task(model, optimizer, loss, lambda: float(((model(x) - y) ** 2).mean().detach()), STEPS, larger_is_better=False)


def fast(seed: int) -> Task:
    """At a rate that it does not bear."""
    made = task(seed)
    made.optimizer.param_groups[0]["lr"] = 50.0
    return made


def not_a_task(seed: int) -> int:
    return seed


WHERE = f"{Path(__file__)}:task"
POINT = Point(weight="SQ3.9", gradient="SQ2.10", direction="SQ2.10", update="SQ0.9", rounding="residual:4", motion="intended")


def entry(where: str = WHERE, **tables: Any) -> Entry:
    return Entry.of(Settings(tables=tables), where)


def by_hand(point: Point, seed: int) -> tuple[float, list[float]]:
    torch.manual_seed(seed)
    made = task(seed)
    throttle = None
    if not point.is_float:
        formats = {
            "gradient": point.gradient,
            "weight": point.weight,
            "update": point.update,
            "direction": point.direction,
            "residual_bits": 4,
        }
        throttle = GlobalThrottle(made.optimizer, model=made.model, formats={"*": formats}, motion="intended")
    losses = []
    for step in range(STEPS):
        made.optimizer.zero_grad()
        loss = made.loss(step)
        losses.append(float(loss.detach()))
        loss.backward()
        made.optimizer.step()
    assert throttle is None or throttle.steps == STEPS
    return made.score(), losses


@pytest.mark.parametrize("point", [POINT, Point(weight=FLOAT, law=OFF)], ids=["fixed", "float"])
def test_a_run_is_the_users_training_under_the_throttle(point: Point) -> None:
    found = entry().train(point, 3)
    score, losses = by_hand(point, 3)
    assert found["ending"] == "done" and found["steps"] == STEPS
    assert found["score"] == score and found["curve"]["loss"] == losses and found["loss"] == losses[-1]


def test_the_unit_is_that_of_the_throttle() -> None:
    made = task(0)
    formats = {
        "gradient": POINT.gradient,
        "weight": POINT.weight,
        "update": POINT.update,
        "direction": POINT.direction,
        "residual_bits": 4,
    }
    throttle = GlobalThrottle(made.optimizer, model=made.model, formats={"*": formats})
    (config,) = throttle.plan.configs
    assert entry().config(POINT) == config


def test_binary_points_are_those_of_calibrate() -> None:
    torch.manual_seed(0)
    made = task(0)
    wanted = calibrate(made.model, made.optimizer, range(CALIBRATED), lambda _, step: made.loss(step), 8)["*"]
    found = entry().calibrate([]).integers
    for name in ("weight", "gradient", "update", "direction"):
        assert wanted[name].startswith(f"SQ{getattr(found, name)}.")


def test_a_grid_a_tensor_is_that_of_calibrate_and_of_the_throttle() -> None:
    torch.manual_seed(0)
    made = task(0)
    wanted = calibrate(made.model, made.optimizer, range(CALIBRATED), lambda _, step: made.loss(step), 8, grids="tensor")
    found = entry().calibrate([]).apart
    for name in ("weight", "gradient", "update", "direction"):
        assert wanted["*"][name].startswith(f"SQ{getattr(found, name)}.")
    names = [name for name, _ in made.model.named_parameters()]
    assert found.scales == tuple(wanted.get(name, {}).get("scale", 0) for name in names) and 0 in found.scales
    assert max(found.scales) > 0
    point = replace(POINT, scales=found.scales)
    formats = {name: getattr(POINT, name) for name in ("gradient", "weight", "update", "direction")} | {"residual_bits": 4}
    table = {"*": formats} | {name: {"scale": scale} for name, scale in zip(names, found.scales, strict=True)}
    throttle = GlobalThrottle(made.optimizer, model=made.model, formats=table)
    assert entry().config(point) == throttle.plan.configs[0]
    losses = []
    torch.manual_seed(3)
    made = task(3)
    GlobalThrottle(made.optimizer, model=made.model, formats=table)
    for step in range(STEPS):
        losses.append(made.backward(step))
        made.optimizer.step()
    result = entry().train(point, 3)
    assert result["curve"]["loss"] == losses and result["score"] == made.score()
    assert result["curve"]["loss"] != entry().train(POINT, 3)["curve"]["loss"]


def test_a_run_that_diverges_is_given_up() -> None:
    found = entry(WHERE.replace(":task", ":fast")).train(Point(weight=FLOAT, law=OFF), 0)
    assert found["ending"] == "diverged" and found["score"] == np.inf and found["steps"] < STEPS


def test_a_search_from_a_file_beside_the_task(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(Path(__file__).read_text())
    (tmp_path / "space.toml").write_text(
        '[explore]\ntask = "mine.py:task"\nweight = [6, 12]\nrounding = "residual:4"\nlaw = "stability_margin"\nlanes = 2\n'
    )
    made = CliRunner().invoke(
        main, ["explore", str(tmp_path / "space.toml"), "--out", str(tmp_path / "out"), "--seeds", "2", "--jobs", "1"]
    )
    assert made.exit_code == 0, made.output
    assert "Sequential with SGD, 50 weights, eta = 0.1, 25 steps (task); 2 seeds" in made.output
    assert re.search(r"float, off +\d", made.output)
    assert len(list((tmp_path / "out" / "runs").glob("*.json"))) == 2 * 3


def test_a_task_that_changes_makes_other_runs(tmp_path: Path) -> None:
    first = entry().identity
    (tmp_path / "mine.py").write_text(Path(__file__).read_text())
    same = Entry(f"{tmp_path / 'mine.py'}:task").identity
    (tmp_path / "mine.py").write_text(Path(__file__).read_text() + "\n# other\n")
    assert first == same != Entry(f"{tmp_path / 'mine.py'}:task").identity
    assert entry(throttle={"rho": 0.1}).identity != first


@pytest.mark.parametrize(
    ("where", "tables", "says"),
    [
        ("task", {}, "explore.task must be FILE.py:FUNCTION or MODULE:FUNCTION, not 'task'"),
        ("no_such.py:task", {}, "explore.task 'no_such.py:task' must be in a file or a module that can be imported"),
        ("no_such_module:task", {}, "explore.task 'no_such_module:task' must be in a file or a module that can be imported"),
        ("torch:no_such", {}, "explore.task 'torch:no_such' must name a function of torch, which has no 'no_such'"),
        (WHERE.replace(":task", ":not_a_task"), {}, "explore.task .* must give a kappa_rtl.torch.Task, not 0"),
        (WHERE, {"model": {"hidden": [3]}}, r"\[model\] must not be given beside explore.task: the task has its own"),
        (WHERE, {"training": {"steps": 3}}, "training.steps must not be given beside explore.task, which says so itself"),
        (WHERE, {"throttle": {"eta": 3}}, "keys of .throttle. must be among rho, .* beside explore.task, not 'eta'"),
    ],
)
def test_what_an_entry_refuses(where: str, tables: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        explore(Settings(tables={"explore": {"task": where}} | tables), tmp_path / "out", tell=lambda text: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": 3}, "model must be a torch module, not 3"),
        ({"optimizer": None}, "optimizer must be a torch optimiser without a throttle, not None"),
        ({"loss": 1}, "loss must be a function, not 1"),
        ({"score": 1}, "score must be a function, not 1"),
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"larger_is_better": 1}, "larger_is_better must be True or False, not 1"),
    ],
)
def test_what_a_task_refuses(change: dict[str, Any], says: str) -> None:
    made = task(0)
    with pytest.raises(ValueError, match=f"^{says}"):
        Task(**vars(made) | change)
