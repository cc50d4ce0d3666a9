"""The throttle's state beside torch's own: checkpoints, resumed runs, GradScaler; and a unit beside the golden one."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from support.strategies import exactly

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

from kappa_rtl.torch import BesideError, GlobalThrottle  # noqa: E402
from support.torch_models import ENGINES, batches, flat, loss_of, mlp, train  # noqa: E402


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formats", ["sq12", "sq8_stochastic", "sq8_residual"])
def test_a_run_that_is_resumed_is_the_run(formats: str, engine: str, tmp_path: Path) -> None:
    def made() -> tuple[Any, Any, Any]:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return model, optimizer, GlobalThrottle(optimizer, model=model, formats=formats, engine=engine)

    model, optimizer, throttle = made()
    data = list(batches(12))
    train(model, optimizer, iter(data[:6]))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    train(model, optimizer, iter(data[6:]))
    other, again, resumed = made()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again.load_state_dict(state["optimizer"])
    other.load_state_dict(state["model"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(other, again, iter(data[6:]))
    assert np.array_equal(flat(model.parameters()), flat(other.parameters()))
    assert resumed.metrics() == throttle.metrics() and resumed.steps == throttle.steps == 12


def test_a_state_of_other_formats_is_refused_and_a_plain_one_said() -> None:
    model, other, plain = mlp(), mlp(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GlobalThrottle(optimizer, formats="sq12")
    strange = torch.optim.SGD(other.parameters(), lr=0.1)
    throttle = GlobalThrottle(strange, formats="sq16")
    train(other, strange, batches(2))
    theta = flat(other.parameters())
    with pytest.raises(ValueError, match=r"gradient must be 'SQ4\.12"):
        strange.load_state_dict(optimizer.state_dict())
    assert np.array_equal(flat(other.parameters()), theta) and throttle.steps == 2
    with pytest.warns(UserWarning, match="the checkpoint has no state of a throttle"):
        strange.load_state_dict(torch.optim.SGD(plain.parameters(), lr=0.1).state_dict())


def test_a_state_that_is_refused_changes_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    throttle = GlobalThrottle(optimizer)
    train(model, optimizer, batches(2))
    good = optimizer.state_dict()
    train(model, optimizer, batches(3))
    before, theta = throttle.state_dict(), np.array(throttle.unit.throttle.theta)
    other = torch.optim.SGD(mlp()[0].parameters(), lr=0.1).state_dict()
    for bad in (
        {**good, "param_groups": other["param_groups"]},
        {**good, "kappa_rtl": {**good["kappa_rtl"], "steps": "two"}},
        {**good, "kappa_rtl": {**good["kappa_rtl"], "steps": -1}},
        {**good, "kappa_rtl": {"steps": 1}},
    ):
        with pytest.raises(ValueError):  # noqa: PT011  of torch's or of ours
            optimizer.load_state_dict(bad)
        assert np.array_equal(throttle.unit.throttle.theta, theta) and throttle.steps == 5
        assert throttle.state_dict()["counts"] == before["counts"]
    optimizer.load_state_dict(good)
    assert throttle.steps == 2


def test_grad_scaler_skips_and_overflow_is_found_before_the_inner_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    throttle = GlobalThrottle(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for number, batch in enumerate(batches(4)):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        scaler.scale(loss * (float("inf") if number == 1 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert throttle.steps == 3
    before, momentum = flat(model.parameters()), copy.deepcopy(optimizer.state_dict()["state"])
    model[3].bias.grad[1] = float("nan")
    with pytest.raises(ValueError, match=exactly("gradient of 3.bias[1] must be finite, not nan")):
        optimizer.step()
    assert np.array_equal(flat(model.parameters()), before) and throttle.steps == 3
    for key, state in optimizer.state_dict()["state"].items():
        assert bool((state["momentum_buffer"] == momentum[key]["momentum_buffer"]).all())
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_fused_optimiser_is_asked_to_unscale() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, fused=True)
    throttle = GlobalThrottle(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    (batch,) = batches(1)
    scaler.scale(loss_of(model, batch)).backward()
    with pytest.raises(ValueError, match=r"^gradients must be unscaled before the step: call scaler.unscale_\(optimizer\)"):
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(loss_of(model, batch)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert throttle.steps == 1
    optimizer.zero_grad()
    scaler.scale(loss_of(model, batch) * float("inf")).backward()
    scaler.unscale_(optimizer)
    theta = flat(model.parameters())
    scaler.step(optimizer)
    assert (throttle.steps, throttle.skipped) == (1, 1) and np.array_equal(flat(model.parameters()), theta)


class Faulty(Throttle):
    """A unit that loses an ulp in its third step."""

    def __init__(self, config: ThrottleConfig, weights: Any, *, codes: bool, streaming: bool) -> None:
        super().__init__(config, weights, codes=codes)

    def step(self, *args: Any, **how: Any) -> Any:
        record = super().step(*args, **how)
        if record.step == 2:
            record.theta.flags.writeable = True
            record.theta[5] += 1
        return record


def test_the_first_difference_beside_ends_the_run_with_its_page(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GlobalThrottle(optimizer, beside=Faulty, folder=tmp_path / "found")
    with pytest.raises(BesideError, match=r"^step 2, theta\[5\]: golden"):
        train(model, optimizer, batches(5))
    page = (tmp_path / "found" / "difference.html").read_text()
    assert "theta[5]" in page and (tmp_path / "found" / "difference.json").exists()


def test_the_exported_verilog_beside(tmp_path: Path) -> None:
    from kappa_rtl.sim.cosim import RtlThrottle

    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    throttle = GlobalThrottle(optimizer, formats="sq8_residual", beside=RtlThrottle, folder=tmp_path)
    train(model, optimizer, batches(8))
    with torch.no_grad():
        model.bias.zero_()
    with pytest.warns(UserWarning, match="bias was changed"):
        train(model, optimizer, batches(2))
    assert throttle._beside is not None and throttle._beside.compared == 10
    throttle.detach()
