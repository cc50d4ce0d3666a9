"""The throttle on torch optimisers against the golden unit, step by step; where there is no torch the tests are skipped."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

from kappa_rtl.torch import GlobalThrottle, calibrate, presets  # noqa: E402
from support.torch_models import ENGINES, MODELS, OPTIMISERS, Residual, Twin, batches, flat, loss_of, mlp, train  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*weights lie beyond the rails")


def config_of(throttle: Any) -> ThrottleConfig:
    (config,) = throttle.plan.configs
    return config


@pytest.mark.parametrize(
    ("name", "engine"), [("mlp", engine) for engine in ENGINES] + [(name, "auto") for name in MODELS if name != "mlp"]
)
@pytest.mark.parametrize("formats", ["sq16", "sq8", "sq8_stochastic", "sq8_residual"])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_it_is_the_golden_unit_to_the_bit(name: str, kind: str, formats: str, engine: str) -> None:
    model = MODELS[name]()
    twin_model = copy.deepcopy(model)
    optimizer = OPTIMISERS[kind](model.parameters())
    throttle = GlobalThrottle(optimizer, model=model, formats=formats, engine=engine, chi=0.5)
    gains = [tensor.name for tensors in throttle.plan.tensors for tensor in tensors if tensor.offset]
    assert len(gains) == {"mlp": 1, "residual": 2, "tied": 2}[name]
    twin = Twin(twin_model, OPTIMISERS[kind], config_of(throttle), gains)
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


@pytest.mark.parametrize("weight", ["SQ2.6", "SQ2.14", "SQ2.20", "SQ4.20"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_engines_agree_whatever_the_width(weight: str, dtype: Any) -> None:
    """Codes of 32 bits and floats of 32 meet in 32, in every engine."""
    found = []
    for engine in ENGINES:
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.nn.Parameter(torch.randn(20000, generator=generator).to(dtype) / 2) for _ in range(2))
        optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.03}], lr=0.1, momentum=0.9)
        GlobalThrottle(optimizer, engine=engine, formats={"*": {"weight": weight, "direction": "SQ2.14", "update": "SQ1.23"}})
        for _ in range(3):
            a.grad, b.grad = a.detach() * 1.7 + 0.01, b.detach() * 0.3
            optimizer.step()
        found.append(flat([a, b]))
    assert all(np.array_equal(one, found[0]) for one in found)


def test_the_engines_and_units_agree_where_formats_differ() -> None:
    table = {"*": {"weight": "SQ2.10", "update": "SQ1.11"}, "0.*": {"weight": "SQ3.5", "gradient": "SQ4.4", "residual_bits": 3}}
    found = []
    for engine in ENGINES:
        model = mlp()
        optimizer = OPTIMISERS["momentum"](model.parameters())
        throttle = GlobalThrottle(optimizer, model=model, formats=table, engine=engine)
        train(model, optimizer, batches(15))
        found.append((flat(model.parameters()), throttle.metrics()))
        assert len(throttle.plan.configs) == 2 and str(throttle.unit.throttle.config.motion) == "intended"
        assert "2 unit(s)" in repr(throttle)
    for theta, metrics in found[1:]:
        assert np.array_equal(theta, found[0][0])
        for key, value in metrics.items():
            assert value == pytest.approx(found[0][1][key], rel=1e-5, abs=1e-6) or "update_" in key


def test_every_weight_is_on_its_grid_and_gains_count_from_one() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    GlobalThrottle(optimizer, model=model, formats={"*": {"weight": "SQ2.6"}, "1.weight": {"weight": "SQ1.6"}})
    train(model, optimizer, batches(10))
    for name, parameter in model.named_parameters():
        scaled = parameter.detach().numpy() * 2**6
        assert np.array_equal(scaled, np.rint(scaled)), name
    assert model[1].weight.max() < 2 and not bool((model[1].weight == 1).all())


@pytest.mark.parametrize("told", [{}, {"1.weight": {"gain_from_one": False}}])
def test_gains_are_found_without_a_model_too(told: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD(mlp().named_parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer, formats=told)
    offsets = {tensor.name: tensor.offset for tensors in throttle.plan.tensors for tensor in tensors}
    assert offsets == dict.fromkeys(offsets, 0.0) | {"1.weight": 0.0 if told else 1.0}


def test_schedulers_from_zero_and_groups_with_rates_of_their_own() -> None:
    model = mlp()
    groups = [{"params": list(model[0].parameters()), "lr": 0.1}, {"params": list(model[3].parameters()), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups)
    throttle = GlobalThrottle(optimizer, measure=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 4))
    seen, start = [], flat(model.parameters())
    for batch in batches(6):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        seen.append(throttle.metrics()["throttle/learning_rate"])
        if len(seen) == 1:
            assert np.array_equal(flat(model.parameters()), start), "a rate of 0 moved a weight"
        schedule.step()
    assert seen == [0, 0.025, 0.05, pytest.approx(0.075), 0.1, 0.1]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]


def test_a_group_with_a_tenth_of_the_rate_moves_a_tenth() -> None:
    one, other = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([{"params": [one], "lr": 0.5}, {"params": [other], "lr": 0.0625}])
    GlobalThrottle(optimizer, chi=100)
    one.grad = other.grad = torch.full((4,), 0.5)
    optimizer.step()
    assert one.tolist() == [-0.25] * 4 and other.tolist() == [-0.03125] * 4


def test_closures_give_their_loss_and_gradients() -> None:
    model, other = mlp(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    GlobalThrottle(plain)
    for batch in batches(5):

        def closure(batch: Any = batch) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        assert float(optimizer.step(closure).detach()) > 0
    train(other, plain, batches(5))
    assert throttle.steps == 5
    assert np.array_equal(flat(model.parameters()), flat(other.parameters()))


def test_a_closure_that_fails_leaves_the_rate_as_it_was() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GlobalThrottle(optimizer)

    def closure() -> Any:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        optimizer.step(closure)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("missing", ["keep", "zero"])
def test_frozen_and_missing_gradients(missing: str, engine: str) -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer, missing=missing, engine=engine)
    frozen = model[0].weight.detach().clone()
    data = list(batches(3))
    train(model, optimizer, iter(data[:2]))
    assert bool((model[0].weight == frozen).all())
    kept = {tensor.name: tensor for tensor in throttle.plan.tensors[0]}["3.bias"]
    before = np.asarray(throttle.unit._gradients[0])[kept.place :].copy()
    optimizer.zero_grad()
    loss_of(model, data[2]).backward()
    model[3].bias.grad = None
    optimizer.step()
    after = np.asarray(throttle.unit._gradients[0])[kept.place :]
    assert np.array_equal(after, before) if missing == "keep" else not after.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_sparse_gradients(engine: str) -> None:
    torch.manual_seed(0)
    dense, sparse = torch.nn.Embedding(9, 4), torch.nn.Embedding(9, 4, sparse=True)
    sparse.weight.data.copy_(dense.weight.data)
    for table in (dense, sparse):
        optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
        GlobalThrottle(optimizer, engine=engine)
        for rows in ([1, 2, 2], [0, 8, 1]):
            optimizer.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
    assert bool((dense.weight == sparse.weight).all())


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_edited_between_steps_are_read_anew(engine: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    throttle = GlobalThrottle(optimizer, engine=engine)
    train(model, optimizer, batches(2))
    with torch.no_grad():
        model[3].bias.fill_(0.3)
    with pytest.warns(UserWarning, match="^3.bias was changed between two steps, and is read anew"):
        train(model, optimizer, batches(1))
    assert throttle.unit.edited == 1 and abs(float(model[3].bias.detach().mean()) - 0.3) < 0.1
    model.load_state_dict(copy.deepcopy(model.state_dict()))  # the same weights are no edit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, batches(1))


def test_metrics_history_and_on_step(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    throttle = GlobalThrottle(optimizer, formats="sq8", on_step=seen.append, measure=2)
    assert throttle.metrics() == {}
    train(model, optimizer, batches(6))
    assert len(seen) == 6 and seen[-1] == throttle.metrics()
    assert ["throttle/update_angle_rad" in row for row in seen] == [True, False] * 3
    history = throttle.history
    assert history.steps == 6 and history["alpha_applied"][0] == seen[0]["throttle/alpha_applied"]
    assert history.plot_results(tmp_path / "run.png") is not None and (tmp_path / "run.png").stat().st_size > 10_000
    history.save(tmp_path / "run.npz")
    page = throttle.report(tmp_path / "run.html", "Six steps & more").read_text()
    assert "Six steps &amp; more" in page and "6 steps" in page and "data:image/png" in page and "update_cosine" in page


def test_the_angle_and_length_are_those_of_the_change() -> None:
    for engine in ENGINES:
        weight = torch.nn.Parameter(torch.tensor([0.5, 0.25]))
        optimizer = torch.optim.SGD([weight], lr=0.5)
        throttle = GlobalThrottle(optimizer, formats={"*": {"weight": "SQ2.4", "update": "SQ2.4"}}, engine=engine)
        weight.grad = torch.tensor([0.5, 0.03])  # the second rounds to nothing
        optimizer.step()
        metrics = throttle.metrics()
        assert metrics["throttle/update_angle_rad"] == pytest.approx(np.arctan(0.03 / 0.5), rel=1e-5)
        assert metrics["throttle/update_radius_ratio"] == pytest.approx(0.5 / np.hypot(0.5, 0.03), rel=1e-5)
        assert metrics["throttle/update_underflow"] == 0.5


def test_calibrate_puts_everything_back_and_gives_formats_that_hold() -> None:
    model = Residual()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train(model, optimizer, batches(2))
    before, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    formats = calibrate(model, optimizer, batches(30), loss_of, 10, rounding="stochastic", residual_bits=2)
    assert all(bool((before[name] == tensor).all()) for name, tensor in model.state_dict().items())
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"] and set(after["state"]) == set(state["state"])
    assert formats["*"]["update"].endswith(",stochastic") and formats["*"]["residual_bits"] == 2
    assert formats.shares["weight"]["beyond"] == 0 and formats.shares["gradient"]["beyond"] <= 0.001
    assert "beyond the rails" in str(formats)
    throttle = GlobalThrottle(optimizer, model=model, formats=formats)
    train(model, optimizer, batches(5))
    assert throttle.metrics()["throttle/gradient_overflow_fraction"] <= 0.001


def test_a_random_update_on_a_finer_grid_than_the_weights_is_said() -> None:
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="the update is rounded at random on a finer grid than the weights'"):
        GlobalThrottle(optimizer, formats={"*": {"weight": "SQ2.6", "update": "SQ1.7,stochastic"}})


def test_a_group_added_later_is_refused() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    GlobalThrottle(optimizer)
    optimizer.add_param_group({"params": list(model[3].parameters())})
    with pytest.raises(ValueError, match=r"^param_groups must hold the parameters that the throttle was made for"):
        optimizer.step()


def test_a_rate_above_the_largest_is_refused_with_the_way_out() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GlobalThrottle(optimizer)
    optimizer.param_groups[0]["lr"] = 0.2
    (batch,) = batches(1)
    loss_of(model, batch).backward()
    before = flat(model.parameters())
    with pytest.raises(ValueError, match=r"^eta must be from 0 to eta_max = 0.1, not 0.2; make the throttle after"):
        optimizer.step()
    assert np.array_equal(flat(model.parameters()), before) and optimizer.param_groups[0]["lr"] == 0.2


def test_detached_it_is_the_plain_optimiser() -> None:
    model, other = mlp(), mlp()
    optimizer, plain = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other))
    GlobalThrottle(optimizer).detach()
    other.load_state_dict(model.state_dict())
    train(model, optimizer, batches(3))
    train(other, plain, batches(3))
    assert np.array_equal(flat(model.parameters()), flat(other.parameters()))
    assert "kappa_rtl" not in optimizer.state_dict()


def test_presets_are_tables() -> None:
    for name, table in presets.PRESETS.items():
        model = mlp()
        throttle = GlobalThrottle(torch.optim.SGD(model.parameters(), lr=0.1), formats=table)
        assert config_of(throttle).grids.weight.width == int("".join(c for c in name.split("_")[0] if c.isdigit()))


def test_what_is_rounded_at_random_is_not_rounded_to_nearest_behind_it() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = calibrate(model, optimizer, batches(3), loss_of, 8, rounding="stochastic")
    for table in (presets.sq12_stochastic, presets.sq8_stochastic, found):
        config = config_of(GlobalThrottle(torch.optim.SGD(mlp().parameters(), lr=0.01), formats=table))
        assert config.stochastic and config.grids.update.fraction_bits <= config.grids.weight.fraction_bits
