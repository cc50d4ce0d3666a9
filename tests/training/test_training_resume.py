"""A run that is interrupted and called again is, bit for bit, the run that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.network.optimisers import Adam, Momentum, make
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.estimators import make as make_estimator
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.instrumented import Step
from kappa_rtl.golden.training.loop import TrainState
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.resume import Checkpoint
from kappa_rtl.scripts.experiments.training import run as training
from support.strategies import exactly

pytestmark = pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")

PROBLEM = synthetic(0, 60)
FORMATS = {"input": {"value": "SQ4.8"}, "__default__": {"weight": "SQ2.8", "update": "SQ1.8", "adam_m": "SQ4.10"}}


def build(dtype: Any = np.float64) -> LinearBlockModel:
    return LinearBlockModel(PROBLEM, num_hidden=[3], activation="tanh", use_batchnorm=True, seed=1, dtype=dtype)


def unit(kind: Callable[..., Any], **fields: Any) -> Any:
    theta = build().theta
    law = fields.pop("law", "stability_margin")
    config = ThrottleConfig.of_law(law, elements=theta.size, eta=0.2, weight="SQ3.13", gradient="SQ6.10", **fields)
    codes = quantise(theta, config.grids.weight)
    return kind(config, codes, [4, theta.size - 4], codes=True) if kind is ShardedThrottle else kind(config, codes, codes=True)


RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    "published": lambda: {"precision_dict": FORMATS, "optimiser": "adam", "use_controller": True, "estimator": "half_batch"},
    "residuals": lambda: {"throttle": unit(Throttle, residual_bits=4, update="SQ1.7"), "estimator": "momentum"},
    "stochastic": lambda: {"throttle": unit(Throttle, update="SQ1.7,stochastic", lanes=3), "optimiser": "momentum"},
    "shards": lambda: {"throttle": unit(ShardedThrottle, update="SQ1.7,stochastic"), "estimator": "same_batch"},
    "delay": lambda: {"throttle": unit(Throttle, delay=1, law="adgd"), "distortion": True, "hessian": "lanczos"},
    "float": lambda: {"throttle": unit(FloatThrottle, delay=1, law="adgd"), "optimiser": "nesterov"},
    "ratio": lambda: {"throttle": unit(Throttle, law="trust_ratio"), "precision_dict": FORMATS},
    "recipe": lambda: {
        "throttle": unit(Throttle, direction="SQ8.8"),
        "schedule": "warmup_cosine",
        "clip": "gradient",
        "max_gradient_norm": 0.5,
        "weight_decay": 0.1,
        "optimiser": "adam",
        "on_bad_gradient": "skip",
    },
    "norm": lambda: {"throttle": unit(Throttle, law="clip_norm", watchdog=("learning_dead",))},
}


def fit(model: LinearBlockModel, made: dict[str, Any], **more: Any) -> FitHistory:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 16, "learning_rate": 0.2, "batch_seed": 4}
    return model.train_instrumented(PROBLEM.X, PROBLEM.Y, **settings | made | more)


def interrupt(after: int) -> Callable[[Step], None]:
    def observe(step: Step) -> None:
        if step.step == after:
            raise KeyboardInterrupt

    return observe


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = build()
    want = fit(whole, RUNS[name]())
    path = tmp_path / "run.npz"
    for after in (4, 9):
        with pytest.raises(KeyboardInterrupt):
            fit(build(), RUNS[name](), checkpoint=Checkpoint(path, 0), observe=interrupt(after))
    model, seen = build(), []
    got = fit(model, RUNS[name](), checkpoint=Checkpoint(path, 0), observe=lambda step: seen.append(step.step))
    assert seen == [9, 10, 11], "the step that was interrupted had not been saved, and no other is made again"
    assert got == want
    assert {key: value.tobytes() for key, value in model.get_weights().items()} == {
        key: value.tobytes() for key, value in whole.get_weights().items()
    }
    assert not path.exists()


def test_a_kept_file_has_the_whole_run(tmp_path: Path) -> None:
    keep = Checkpoint(tmp_path / "run.npz", keep=True)
    want = fit(build(), RUNS["norm"](), checkpoint=keep)
    assert fit(build(), RUNS["norm"](), checkpoint=keep, observe=interrupt(0)) == want


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 20}, "batch_size must be 20 as here, not 16 as in what is loaded"),
        ({"batch_seed": 5}, "batch_seed must be 5 as here, not 4 as in what is loaded"),
        ({"optimiser": "nesterov"}, "optimiser_kind must be 'Nesterov' as here, not 'SGD' as in what is loaded"),
        ({"throttle": None}, "unit_kind must be 'PublishedThrottle' as here, not 'Throttle' as in what is loaded"),
    ],
)
def test_the_file_of_another_run_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        fit(build(), RUNS["residuals"]() | {"estimator": "naive"}, checkpoint=Checkpoint(path, 0), observe=interrupt(2))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=exactly(f"checkpoint {path}: {message}")):
        fit(build(), RUNS["residuals"]() | {"estimator": "naive"} | changes, checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_is_refused_by_name_before_the_run(tmp_path: Path) -> None:
    class Opaque:
        """A unit without a state that anyone could read."""

        def __init__(self) -> None:
            self.inner = unit(Throttle)
            self.config, self.step = self.inner.config, self.inner.step

        @property
        def weights(self) -> Any:
            return self.inner.weights

    with pytest.raises(ValueError, match=r"^unit must be one whose state can be saved and loaded, not <"):
        fit(build(), {"throttle": Opaque()}, checkpoint=tmp_path / "run.npz")
    with pytest.raises(ValueError, match=exactly("checkpoint must be the name of an .npz file, not 'run.json'")):
        fit(build(), {}, checkpoint="run.json")


def test_a_state_between_two_runs_in_a_file(tmp_path: Path) -> None:
    """The second half of a run in another process: the state, and the model's variables."""
    one, state = build(), TrainState()
    for _ in range(2):
        whole = fit(one, {"throttle": state.unit or unit(Throttle), "optimiser": "adam", "state": state})
    first, begun = build(), TrainState()
    fit(first, {"throttle": unit(Throttle), "optimiser": "adam", "state": begun})
    begun.save(tmp_path / "state.npz")
    second = build()
    second.set_weights(first.get_weights())
    with pytest.raises(ValueError, match=r"state\.npz: unit must be one whose state can be saved and loaded, not None"):
        TrainState().load(tmp_path / "state.npz")
    found = TrainState(unit=unit(Throttle), optimiser=Adam(), estimator=make_estimator("naive"))
    with pytest.raises(
        ValueError, match=exactly(f"{tmp_path / 'state.npz'}: beta1 must be 0.5 as here, not 0.9 as in what is loaded")
    ):
        TrainState(unit=found.unit, optimiser=Adam(0.5), estimator=found.estimator).load(tmp_path / "state.npz")
    assert found.unit is not None and found.unit.weights.tobytes() != begun.unit.weights.tobytes()  # type: ignore[union-attr]
    found.load(tmp_path / "state.npz")
    assert fit(second, {"state": found}) == whole


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam"])
def test_optimisers_in_a_file(name: str, tmp_path: Path) -> None:
    rng, one, other = np.random.default_rng(0), make(name), make(name)
    other.propose(rng.normal(size=3))
    for _ in range(3):
        one.propose(rng.normal(size=5).astype(np.float32))
    other.load(one.save(tmp_path / "optimiser.npz"))
    g = rng.normal(size=5).astype(np.float32)
    assert one.propose(g).tobytes() == other.propose(g).tobytes()
    with pytest.raises(ValueError, match=r"optimiser\.npz: (kind must be 'Momentum', not|mu must be 0\.8 as here, not 0\.9)"):
        Momentum(0.8).load(tmp_path / "optimiser.npz")


def test_the_command_goes_on_inside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both phases of an arm, the run that was under way, and the folder of what is unfinished, which goes when all is done."""
    want = training.train("000", tmp_path / "whole", seeds=1, steps=12, datapath="golden").runs
    monkeypatch.setattr(training, "SECONDS", 0.0)
    real, made = training.run_arm, []

    def struck(*args: Any, **more: Any) -> FitHistory:
        def observe(step: Step) -> None:
            made.append(step.step)
            if len(made) in (7, 20 + 9):
                raise KeyboardInterrupt

        return real(*args, observe=observe, **more)

    monkeypatch.setattr(training, "run_arm", struck)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            training.train("000", tmp_path / "struck", seeds=1, steps=12, datapath="golden")
        assert list((tmp_path / "struck" / "unfinished").iterdir())
    got = training.train("000", tmp_path / "struck", seeds=1, steps=12, datapath="golden").runs
    assert made[:7] == list(range(7)) and made[7:21] == list(range(6, 20)), "the first phase went on where it was"
    assert made[21:29] == list(range(8)) and made[29:34] == list(range(7, 12)), "and so did the second"
    assert got == want
    assert not (tmp_path / "struck" / "unfinished").exists()


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_a_checkpoint_that_cannot_be_written_is_told_before_the_first_step(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = synthetic(0).rows(np.arange(40))
    model = LinearBlockModel(data, num_hidden=[4], seed=0)
    path = tmp_path / folder / "run.npz"
    with pytest.raises(ValueError, match=r"^checkpoint must be in a folder that can be written, not '.*run\.npz': "):
        model.train_instrumented(data.X, data.Y, epochs=1, batch_size=40, checkpoint=path)
