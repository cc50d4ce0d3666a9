"""What the throttle on a torch optimiser refuses, and what it does where something else goes wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

from kappa_rtl.torch import GlobalThrottle, calibrate  # noqa: E402
from support.torch_models import ENGINES, Residual, batches, flat, loss_of, mlp, train  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weights lie beyond the rails")

REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "optimizer must be a torch optimiser, not Sequential(": lambda m, o: GlobalThrottle(m),
    "optimizer must take steps proportional to its rate, which": lambda m, o: GlobalThrottle(torch.optim.LBFGS(m.parameters())),
    "optimizer must have no other throttle: call its detach() first": lambda m, o: [GlobalThrottle(o), GlobalThrottle(o)],
    "missing must be one of keep, zero, not 'drop'": lambda m, o: GlobalThrottle(o, missing="drop"),
    "engine must be one of auto, numpy, numba, torch, torch_compiled, not 'gpu'": lambda m, o: GlobalThrottle(o, engine="gpu"),
    "measure must be an integer of at least 0, not -1": lambda m, o: GlobalThrottle(o, measure=-1),
    "eta_max must be at least the rate 0.1, finite and": lambda m, o: GlobalThrottle(o, eta_max=0.01),
    "formats must be a table or one of sq16, sq12, sq8, sq12_stochastic": lambda m, o: GlobalThrottle(o, formats="sq7"),
    "formats['*'] has gradient, weight, update,": lambda m, o: GlobalThrottle(o, formats={"*": {"weights": "SQ2.6"}}),
    "formats must name parameters, not 'c*'; they are 0.weight": lambda m, o: GlobalThrottle(o, model=m, formats={"c*": {}}),
    "0.0: weight must be a format whose values": lambda m, o: GlobalThrottle(o, formats={"*": {"weight": "SQ2.30"}}),
    "law must be one of stability_margin, inverse_curvature": lambda m, o: GlobalThrottle(o, law="chi"),
    "chy is no setting of a throttle; it has alpha_min,": lambda m, o: GlobalThrottle(o, chy=1.5),
    "delay must not be given: a step has to be decided": lambda m, o: GlobalThrottle(o, delay=1),
    "eta must not be given: the optimiser's rate is eta": lambda m, o: GlobalThrottle(o, eta=1),
    "residual_bits must be given in formats, as {'*': {'residual_bits': 3}}": lambda m, o: GlobalThrottle(o, residual_bits=3),
    "on_step must be a function of the metrics, not 5": lambda m, o: GlobalThrottle(o, on_step=5),
    "0.0 must have memory for each of its elements": lambda m, o: GlobalThrottle(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1).expand(3))], lr=0.1)
    ),
    "0.0: weight must be a format whose values torch.float8": lambda m, o: GlobalThrottle(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(3).to(torch.float8_e4m3fn), requires_grad=False)], lr=0.1)
    ),
    "bits must be of gradient, weight, update, direction, not of 'w'": lambda m, o: calibrate(m, o, [], loss_of, {"w": 3}),
    "fields must be among gain_from_one, lanes, random_bits": lambda m, o: calibrate(m, o, [], loss_of, 8, law="adgd"),
    "rounding must be one of nearest_even, nearest_up, ": lambda m, o: calibrate(m, o, [], loss_of, 8, rounding="nearest"),
    "batches must give at least one batch with a gradient": lambda m, o: calibrate(m, o, [], loss_of),
    "bits of gradient must be an integer from 4 to 32, not 2": lambda m, o: calibrate(m, o, [], loss_of, 2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message: str) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        REFUSED[message](model, torch.optim.SGD(model.parameters(), lr=0.1))


OWN = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)]


@pytest.mark.parametrize("kind", [kind for kind in OWN if kind is not torch.optim.Optimizer])
def test_every_optimiser_of_torch_is_proportional_to_its_rate_or_refused(kind: Any) -> None:
    from kappa_rtl.frameworks.torch.throttle import UNEVEN

    found = []
    for rate in (1.0, 0.25):
        generator = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
        optimizer = kind([weight], lr=rate)
        for _ in range(8):
            weight.data.fill_(0.5)
            gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
            weight.grad = gradient.to_sparse() if kind.__name__ == "SparseAdam" else gradient
            optimizer.step(lambda weight=weight: weight.square().sum())
        found.append((weight.detach() - 0.5) / rate)
    assert kind.__name__ in UNEVEN or torch.allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("where", ["step", "state"])
def test_an_exception_within_the_step_is_recovered_from(where: str) -> None:
    class Failing(torch.optim.Optimizer):
        fails = False

        def __init__(self, parameters: Any, lr: float) -> None:
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self) -> None:  # type: ignore[override]
            for p in self.param_groups[0]["params"]:
                p -= self.param_groups[0]["lr"] * p.grad
                if self.fails:
                    raise RuntimeError("half a step")

    model, other = mlp(), mlp()
    optimizer = Failing(model.parameters(), lr=0.1)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    for one in (optimizer, plain):
        GlobalThrottle(one)
    data = list(batches(6))
    train(model, optimizer, iter(data[:3]))
    optimizer.fails = True
    with pytest.raises(RuntimeError, match="half a step"):
        train(model, optimizer, iter(data[3:4]))
    optimizer.fails = False
    if where == "state":
        assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.1
    else:
        optimizer.param_groups[0]["lr"] = 0.05  # what is set in between stays
    plain.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(other, plain, iter(data[:3]) if where == "state" else iter(data[:0]))
    if where == "state":
        assert np.array_equal(flat(model.parameters()), flat(other.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, iter(data[4:]))
    assert optimizer.param_groups[0]["lr"] == (0.1 if where == "state" else 0.05)


def test_a_class_that_calls_its_parents_step_makes_one() -> None:
    class Calling(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    found = []
    for kind in (torch.optim.SGD, Calling):  # the parent's hooks are there once it was made
        model = mlp()
        optimizer = kind(model.parameters(), lr=0.1, momentum=0.5)
        throttle = GlobalThrottle(optimizer, formats="sq8_stochastic")
        train(model, optimizer, batches(4))
        found.append((flat(model.parameters()), throttle.steps, throttle.metrics()["throttle/curvature"]))
    assert np.array_equal(found[0][0], found[1][0]) and found[0][1:] == found[1][1:]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_proposal_that_is_not_finite_leaves_the_weights(engine: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    throttle = GlobalThrottle(optimizer, engine=engine, formats={"*": {"gain_from_one": False}})
    weight.grad = torch.ones(3)
    optimizer.step()
    before = weight.detach().clone()
    optimizer.state[weight]["momentum_buffer"][1] = float("inf")
    with pytest.raises(ValueError, match=r"^direction of 0.0\[1\] must be finite, not -?inf"):
        optimizer.step()
    assert bool((weight == before).all()) and throttle.steps == 1 and optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_memory_format_of_its_own(engine: str) -> None:
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(4, 3, 3)
        if channels_last:
            layer = layer.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        GlobalThrottle(optimizer, engine=engine)
        for seed in range(3):
            optimizer.zero_grad()
            layer(torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
            for p in layer.parameters():
                p.grad = (p.grad * 64).round() / 64  # sums in another order round otherwise
            optimizer.step()
        found.append(torch.cat([p.detach().contiguous().reshape(-1) for p in layer.parameters()]))
    assert bool((found[0] == found[1]).all())


def test_a_model_that_is_converted_afterwards_is_refused() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    GlobalThrottle(optimizer)
    model.double()
    message = "0.weight must stay torch.float32 on cpu, as when the throttle was made, not torch.float64 on cpu"
    with pytest.raises(ValueError, match=f"^{message}"):
        train(model.double(), optimizer, ((x.double(), y) for x, y in batches(1)))


def test_a_step_without_any_gradient_is_none() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer)
    optimizer.step()
    assert (throttle.steps, throttle.skipped) == (0, 1) and throttle.metrics() == {}


def test_a_rate_of_float32_is_the_decimal_that_it_prints_as() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1))
    throttle = GlobalThrottle(optimizer)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert throttle.metrics()["throttle/learning_rate"] == 0.1 and isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)


def test_calibrate_under_a_warm_up_and_with_frozen_norms() -> None:
    formats = []
    for warm in (False, True):
        model = Residual()
        model.norm.eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        if warm:
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 10))
        rate, random = optimizer.param_groups[0]["lr"], torch.get_rng_state()
        formats.append(calibrate(model, optimizer, batches(5), loss_of, 12))
        assert (model.training, model.norm.training) == (True, False)
        assert optimizer.param_groups[0]["lr"] is rate and bool((torch.get_rng_state() == random).all())
    assert formats[0] == formats[1]
