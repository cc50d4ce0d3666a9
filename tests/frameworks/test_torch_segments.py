"""A binary point for every parameter of a torch model: the golden unit with segments, step by step, and its calibration."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

from kappa_rtl.torch import BesideError, GlobalThrottle, calibrate  # noqa: E402
from support.torch_models import (  # noqa: E402
    ENGINES,
    MODELS,
    OPTIMISERS,
    Residual,
    Tied,
    Twin,
    batches,
    flat,
    loss_of,
    mlp,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*weights lie beyond the rails")

SCALES = {"*": {"scale": 1}, "*weight": {"scale": 0}, "*.bias": {"scale": 3}}
WIDTHS: dict[str, dict[str, Any]] = {
    "nearest": {"weight": "SQ2.6", "update": "SQ1.9", "gradient": "SQ5.7", "direction": "SQ6.8"},
    "stochastic": {"weight": "SQ2.10", "update": "SQ2.10,stochastic", "gradient": "SQ6.10", "direction": "SQ6.10"},
    "residual": {"weight": "SQ2.5", "update": "SQ1.9", "gradient": "SQ5.7", "direction": "SQ6.8", "residual_bits": 4},
}


def formats_of(widths: str) -> dict[str, dict[str, Any]]:
    return {**SCALES, "*": SCALES["*"] | WIDTHS[widths]}


@pytest.mark.parametrize(
    ("name", "engine"), [("mlp", engine) for engine in ENGINES] + [(name, "auto") for name in MODELS if name != "mlp"]
)
@pytest.mark.parametrize("widths", WIDTHS)
def test_it_is_the_golden_unit_to_the_bit(name: str, widths: str, engine: str) -> None:
    model, kind = MODELS[name](), "momentum" if widths == "residual" else "adamw"
    twin_model = copy.deepcopy(model)
    optimizer = OPTIMISERS[kind](model.parameters())
    throttle = GlobalThrottle(optimizer, model=model, formats=formats_of(widths), engine=engine, chi=0.5)
    (config,) = throttle.plan.configs
    names = dict(model.named_parameters())
    assert [segment.name for segment in config.segments] == list(names) and str(config.motion) == "intended"
    assert {segment.scale for segment in config.segments} >= {0, 3}
    gains = [tensor.name for tensors in throttle.plan.tensors for tensor in tensors if tensor.offset]
    twin = Twin(twin_model, OPTIMISERS[kind], config, gains)
    for batch in batches(12):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        record = twin.step(batch)
        metrics = throttle.metrics()
        assert np.array_equal(np.asarray(throttle.unit.throttle.theta), record.theta)
        assert metrics["throttle/alpha"] == float(record.registers.alpha)
        assert metrics["throttle/curvature"] == float(record.registers.curvature)
        assert np.array_equal(flat(model.parameters()), flat(twin.model.parameters()))
    for segment, parameter in zip(config.segments, names.values(), strict=True):
        scaled = parameter.detach().numpy() * 2.0 ** (config.grids.weight.fraction_bits + segment.scale)
        assert np.array_equal(scaled, np.rint(scaled))
    assert f"in {len(names)} segments finer by 0 to 3 bits" in repr(throttle)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_engines_agree_in_other_floats(dtype: Any) -> None:
    """Half floats reach less far than what a fine grid is scaled by."""
    found = []
    for engine in ENGINES:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.nn.Parameter((torch.randn(500, generator=generator) / 9).to(dtype)) for _ in range(2))
        optimizer = torch.optim.SGD([("a", a), ("b", b)], lr=0.5, momentum=0.5)
        table = {"*": {"weight": "SQ2.4", "update": "SQ1.9", "gradient": "SQ6.6", "direction": "SQ6.6"}, "b": {"scale": 2}}
        GlobalThrottle(optimizer, engine=engine, formats=table)
        for _ in range(4):
            a.grad, b.grad = a.detach() * 1.7 + 0.01, b.detach() * 300
            optimizer.step()
        found.append(flat([a, b]))
    assert all(np.array_equal(one, found[0]) for one in found) and np.isfinite(found[0]).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_run_that_is_resumed_is_the_run(widths: str, engine: str, tmp_path: Path) -> None:
    def made(formats: Any) -> tuple[Any, Any, Any]:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return model, optimizer, GlobalThrottle(optimizer, model=model, formats=formats, engine=engine)

    model, optimizer, throttle = made(formats_of(widths))
    data = list(batches(12))
    train(model, optimizer, iter(data[:6]))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    train(model, optimizer, iter(data[6:]))
    other, again, resumed = made(formats_of(widths))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again.load_state_dict(state["optimizer"])
    other.load_state_dict(state["model"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(other, again, iter(data[6:]))
    assert np.array_equal(flat(model.parameters()), flat(other.parameters()))
    assert resumed.metrics() == throttle.metrics() and resumed.steps == throttle.steps == 12
    strange = made({"*": WIDTHS[widths], "0.bias": {"scale": 2}})[1]
    with pytest.raises(ValueError, match="segments"):
        strange.load_state_dict(state["optimizer"])


def test_the_history_has_the_segments(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer, model=model, formats=formats_of("nearest"))
    train(model, optimizer, batches(3))
    (table,) = throttle.history.meta["throttle"]
    assert [segment["scale"] for segment in table["segments"]] == [0, 3, 0, 3, 0, 3]
    assert "in 6 segments" in throttle.report(tmp_path / "page.html").read_text()


def test_many_parameters_share_segments() -> None:
    """More than a table has entries: one for every scale, whose parameters lie beside each other."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 3) for _ in range(40)]
    model = torch.nn.Sequential(*layers)
    found = []
    for engine in ENGINES:
        own = copy.deepcopy(model)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.5)
        throttle = GlobalThrottle(optimizer, model=own, formats=formats_of("nearest"), engine=engine)
        train_on = torch.ones(4, 3)
        for _ in range(3):
            optimizer.zero_grad()
            own(train_on).square().sum().backward()
            optimizer.step()
        (config,) = throttle.plan.configs
        assert [(segment.elements, segment.scale) for segment in config.segments] == [(360, 0), (120, 3)]
        found.append(flat(own.parameters()))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert not np.array_equal(found[0], flat(model.parameters()))
    few = GlobalThrottle(torch.optim.SGD(mlp().named_parameters(), lr=0.5), formats=formats_of("nearest"), entries=4)
    assert [(one.elements, one.scale) for one in few.plan.configs[0].segments] == [(80, 0), (19, 3)]


def test_where_formats_make_several_units_a_scale_makes_formats() -> None:
    """As if they had been written so."""
    found = []
    for table in (
        {"*": WIDTHS["nearest"], "0.*": {"residual_bits": 3}, "3.bias": {"scale": 2}},
        {
            "*": WIDTHS["nearest"],
            "0.*": {"residual_bits": 3},
            "3.bias": {"weight": "SQ0.8", "update": "SQ-1.11", "gradient": "SQ3.9", "direction": "SQ4.10"},
        },
    ):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
        throttle = GlobalThrottle(optimizer, model=model, formats=table)
        train(model, optimizer, batches(8))
        assert len(throttle.plan.configs) == 3 and not any(config.segments for config in throttle.plan.configs)
        found.append(flat(model.parameters()))
    assert np.array_equal(*found)


def test_the_first_difference_beside_names_the_place(tmp_path: Path) -> None:
    from kappa_rtl.golden.throttle import Throttle

    class Faulty(Throttle):
        """A unit that takes segment after segment for one of the scale before it."""

        def __init__(self, config: Any, weights: Any, *, codes: bool, streaming: bool) -> None:
            layout = [{"elements": one.elements, "scale": max(0, one.scale - 1)} for one in config.segments]
            super().__init__(config.replace(segments=layout), weights, codes=codes)

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GlobalThrottle(optimizer, model=model, formats=formats_of("nearest"), beside=Faulty, folder=tmp_path)
    with pytest.raises(BesideError, match=r"^step 0, "):
        train(model, optimizer, batches(5))
    table = json.loads((tmp_path / "difference.json").read_text())["configuration"]
    assert [segment["name"] for segment in table["segments"]] == [name for name, _ in model.named_parameters()]


def test_the_exported_verilog_beside(tmp_path: Path) -> None:
    from kappa_rtl.sim.cosim import RtlThrottle

    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.05)
    table = {"*": WIDTHS["residual"] | {"lanes": 4}, "bias": {"scale": 3}}
    throttle = GlobalThrottle(optimizer, formats=table, beside=RtlThrottle, folder=tmp_path)
    train(model, optimizer, batches(8))
    assert throttle._beside is not None and throttle._beside.compared == 8
    throttle.detach()


@pytest.mark.parametrize("make", [mlp, Residual, Tied])
@pytest.mark.parametrize("rounding", [None, "stochastic"])
def test_calibrate_finds_a_scale_for_every_parameter(make: Any, rounding: str | None) -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    start, state = flat(model.parameters()), torch.get_rng_state()
    found = calibrate(model, optimizer, batches(9), loss_of, 8, grids="tensor", rounding=rounding)
    assert np.array_equal(flat(model.parameters()), start) and torch.equal(torch.get_rng_state(), state)
    assert all(share["beyond"] < 0.01 for share in found.shares.values())
    throttle = GlobalThrottle(optimizer, model=model, formats=found)
    (tensors,), (config,) = throttle.plan.tensors, throttle.plan.configs
    assert {tensor.scale for tensor in tensors} > {0}
    for tensor in tensors:
        most = float((tensor.parameter.detach() - tensor.offset).abs().max())
        rail = 2.0 ** (config.grids.weight.integer_bits - 1 - tensor.scale)
        assert 4 * most <= rail or tensor.name == "", tensor.name
    assert "scale" in str(found)
    train(model, optimizer, batches(9))
    assert throttle.metrics()["throttle/weight_saturated"] < 0.02


def test_calibrate_with_parameters_that_nothing_comes_for() -> None:
    """Frozen ones, and an embedding of which a few rows are used: what is not there asks for no coarser grid."""
    torch.manual_seed(0)
    table, head = torch.nn.Embedding(2000, 4), torch.nn.Linear(4, 2)
    model = torch.nn.Sequential(table, head)
    head.bias.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model: Any, batch: Any) -> Any:
        return model(batch).square().mean() * 2.0**-12

    found = calibrate(model, optimizer, [torch.tensor([3])] * 3, loss, 8, grids="tensor")
    assert int(found["*"]["gradient"].removeprefix("SQ").partition(".")[0]) < -4
    assert found["1.weight"]["scale"] >= 1 and "0.weight" not in found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"formats": {"*": {"scale": 8}}}, r"^formats\['\*'\].scale must be an integer from 0 to 7, not 8$"),
        ({"formats": {"*": {"scale": 1.0}}}, r"^formats\['\*'\].scale must be an integer from 0 to 7, not 1.0$"),
        ({"formats": {"*": {"scale": 3}}, "scale_max": 2}, r"^segments\[0\].scale must be an integer from 0 to 2, not 3$"),
        ({"formats": {"0.*": {"scale": 3}}, "entries": 1}, r"^segments must be at most entries = 1, not 2$"),
        ({"segments": 2}, r"^segments must not be given: parameters with a scale are segments"),
        ({"formats": {"*": {"weight": "SQ4.20", "scale": 7}}}, r"^1.weight: weight must be a format whose values torch.float32"),
    ],
)
def test_what_is_refused(given: dict[str, Any], says: str) -> None:
    model = mlp()
    start = flat(model.parameters())
    with pytest.raises(ValueError, match=says):
        GlobalThrottle(torch.optim.SGD(model.parameters(), lr=0.1), model=model, **given)
    assert np.array_equal(flat(model.parameters()), start)
    with pytest.raises(ValueError, match=r"^grids must be one of one, tensor, not 'each'$"):
        calibrate(model, torch.optim.SGD(model.parameters(), lr=0.1), batches(1), loss_of, grids="each")
