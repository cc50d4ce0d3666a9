"""The torch engine against the golden unit over configurations at large, and the codes of floats against numpy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.rounding import quantise, values
from kappa_rtl.golden.throttle import Throttle
from support.strategies import OVERFLOWS, ROUNDINGS, codes, configs, vectors

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

from kappa_rtl.frameworks.torch import passes  # noqa: E402
from kappa_rtl.frameworks.torch.codes import NotFiniteError, coded, values_of  # noqa: E402
from kappa_rtl.frameworks.torch.engine import TorchShard  # noqa: E402
from kappa_rtl.torch import GlobalThrottle  # noqa: E402
from support.torch_models import batches, flat, mlp, train  # noqa: E402


def on_cpu(config: ThrottleConfig, weights: Any) -> TorchShard:
    return TorchShard(config, weights, "cpu")


def same_steps(unit: Throttle, other: Throttle, steps: Any) -> bool:
    """Whether a unit of numpy and one of tensors agree in everything, step by step."""
    for gradient, direction in steps:
        a = unit.step(gradient, direction, codes=True)
        along = [torch.as_tensor(a_part) for a_part in other._split(gradient, "gradient", "gradient", True)]
        way = (
            along if direction is None else [torch.as_tensor(d) for d in other._split(direction, "direction", "direction", True)]
        )
        registers, (update,) = other.advance(along, way)
        if a.registers != registers or not np.array_equal(a.theta, other.theta) or not np.array_equal(a.update, update.numpy()):
            return False
        if not np.array_equal(unit.shards[0].state_dict()["residual"], other.shards[0].state_dict()["residual"]):
            return False
    return True


@settings(max_examples=250)
@given(st.data(), st.one_of(configs(), configs(segmented=True, delay=0)))
def test_any_configuration(data: st.DataObject, config: ThrottleConfig) -> None:
    n, grids = config.elements, config.grids
    theta = np.array(data.draw(st.lists(codes(grids.weight), min_size=n, max_size=n)))
    unit, other = Throttle(config, theta, codes=True), Throttle(config, theta, codes=True, engine=on_cpu)
    projects = Source(config.source).is_projection
    steps = []
    for _ in range(data.draw(st.integers(1, 5))):
        own = config.direction is not None or (not projects and data.draw(st.booleans()))
        direction = np.array(data.draw(vectors(grids.direction, n))) if own else None
        steps.append((np.array(data.draw(vectors(grids.gradient, n))), direction))
    assert same_steps(unit, other, steps)
    state = unit.state_dict()
    fresh = Throttle(config, np.zeros(n, np.int64), codes=True, engine=on_cpu)
    fresh.load_state_dict(state)
    assert same_steps(unit, fresh, steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "formats", ["sq16", "sq8_stochastic", "sq8_residual", {"*": {"weight": "SQ4.6"}, "*.bias": {"scale": 3}}]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_by_torch(formats: Any) -> None:
    found = []
    for engine in ("torch", "torch_compiled"):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)
        GlobalThrottle(optimizer, model=model, formats=formats, engine=engine)
        train(model, optimizer, batches(8))
        found.append(flat(model.parameters()))
    assert np.array_equal(*found)


FAULTS: dict[str, tuple[str, Any]] = {
    "half an ulp short": ("_shift_round", lambda made: lambda c, shift, mode: made(c - int(shift > 0), shift, mode)),
    "rails are not counted": ("_rails", lambda made: lambda c, fmt: (c.sum() * 0, c.sum() * 0)),
    "a limb is lost": ("_inner", lambda made: lambda a, b: (made(a, b)[0] * 0, made(a, b)[1] * 0, made(a, b)[2])),
    "the word does not end": ("_fit", lambda made: lambda c, fmt: c),
    "segments are not shifted": ("whole", lambda made: lambda sums, shifts: made(sums, [0] * len(shifts))),
    "segments end elsewhere": ("sizes_of", lambda made: lambda config: made(config)[::-1]),
    "nothing is kept": ("_fallen", lambda made: lambda exact, rounded, shift: exact * 0),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_faulty_engine_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ThrottleConfig(
        elements=40, eta=0.75, gradient="SQ4.12", weight="SQ2.6", update="SQ1.9", residual_bits=4, step_bits=16, motion="applied"
    )
    if what.startswith("segments"):
        config = config.replace(segments=({"elements": 30}, {"elements": 10, "scale": 3}))
    rng = np.random.default_rng(0)
    theta = rng.integers(-128, 128, 40)
    steps = [(rng.integers(-(1 << 15), 1 << 15, 40), None) for _ in range(4)]
    assert same_steps(Throttle(config, theta, codes=True), Throttle(config, theta, codes=True, engine=on_cpu), steps)
    name, fault = FAULTS[what]
    monkeypatch.setattr(passes, name, fault(getattr(passes, name)))
    assert not same_steps(Throttle(config, theta, codes=True), Throttle(config, theta, codes=True, engine=on_cpu), steps)


FLOATS = st.one_of(
    st.floats(-40, 40, width=32),
    st.integers(-600, 600).map(lambda k: k / 64),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([0.0, -0.0, 1e-40, -1e-45, 3e38, -3e38, 2.0**-126]),
)


@settings(max_examples=300)
@given(
    st.lists(FLOATS, min_size=1, max_size=12),
    st.integers(4, 32),
    st.integers(-6, 40),
    st.sampled_from(ROUNDINGS),
    st.sampled_from(OVERFLOWS),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_codes_are_those_of_numpy(real: list[float], width: int, fraction: int, rounding: Any, overflow: Any, dtype: Any) -> None:
    fmt = Fixed(True, width - fraction, fraction, rounding, overflow)
    tensor = torch.tensor(real, dtype=dtype)
    found = coded(tensor, fmt)
    wanted = quantise(tensor.double().numpy(), fmt)
    assert found.codes.tolist() == wanted.tolist()
    if width <= 24 or dtype == torch.float64:
        assert values_of(found.codes, fmt, dtype).double().numpy().tolist() == values(wanted, fmt).tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["SQ4.4", "SQ4.4,floor,wrap", "SQ2.30", "SQ8.-4"])
def test_what_is_not_finite_is_named(bad: float, text: str) -> None:
    with pytest.raises(NotFiniteError) as error:
        coded(torch.tensor([0.0, 1.0, bad, 2.0]), Fixed.parse(text))
    assert error.value.place == 2
