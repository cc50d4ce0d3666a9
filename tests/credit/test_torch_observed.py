"""The diagnostic protocol on torch modules, by hooks; where there is no torch the tests are skipped."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.credit.model import ResidualMLP
from kappa_rtl.golden.protocol.observing import gradient_norms, hidden_norms
from kappa_rtl.golden.protocol.rules import TrainingMonitor, diagnose


def test_without_torch_there_is_an_import_error_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter itself can be imported; only what needs torch asks for it."""
    for name in ("torch", "torch.nn", "torch.nn.functional"):  # another test of this process may have imported them
        monkeypatch.setitem(sys.modules, name, None)
    from kappa_rtl.torch import Observed

    with pytest.raises(ImportError, match="torch"):
        Observed(None, [])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def twin(torch: Any, model: ResidualMLP) -> Any:
    """The same network as a torch module: blocks with LayerNorm, two matrices and a sum, then the head."""
    nn, parts = torch.nn, model.parts

    def linear(kernel: Any, bias: Any) -> Any:
        made = nn.Linear(*kernel.shape, dtype=torch.float64)
        made.weight.data, made.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias.copy())
        return made

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, layer: int) -> None:
            super().__init__()
            self.first = linear(parts["kernel"][layer], parts["bias"][layer])
            self.second = linear(parts["kernel2"][layer], parts["bias2"][layer])

        def forward(self, h: Any) -> Any:
            inner = nn.functional.layer_norm(h, h.shape[-1:], eps=1e-5)
            return h + self.second(nn.functional.gelu(self.first(inner), approximate="tanh"))

    blocks = [Block(layer) for layer in range(model.depth)]
    return nn.Sequential(*blocks, linear(parts["head"].T, parts["offset"])), blocks


def test_it_shows_what_the_same_network_in_numpy_shows(torch: Any) -> None:
    from kappa_rtl.torch import Observed

    model = ResidualMLP(6, 3, 4, w2_std=0.3, seed=1)
    net, blocks = twin(torch, model)
    seen = Observed(net, blocks)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 6)), rng.integers(0, 4, 12)
    assert np.allclose(seen.hidden_states(x), model.hidden_states(x), rtol=1e-10, atol=1e-12)
    assert np.allclose(seen.hidden_gradients(x, y), model.hidden_gradients(x, y), rtol=1e-8, atol=1e-12)
    assert hidden_norms(seen, x) == pytest.approx(hidden_norms(model, x))
    assert gradient_norms(seen, x, y) == pytest.approx(gradient_norms(model, x, y))
    halves = [(x[:6], y[:6]), (x[6:], y[6:])]
    ours, theirs = (diagnose(one, halves, 0.9, 0.5, "BP") for one in (seen, model))
    assert ours.direction == pytest.approx(theirs.direction) and ours.verdict == theirs.verdict == "trustworthy"
    assert ours.samples == 12


def test_nothing_of_the_module_changes(torch: Any) -> None:
    """Neither mode, nor gradients, nor hooks, nor batch statistics; and it needs no grad mode of its caller."""
    from kappa_rtl.torch import Observed

    nn = torch.nn
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    net[3].eval()
    seen = Observed(net, [net[0], net[2]])
    net(torch.randn(9, 5)).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    grads, modes = [p.grad.clone() for p in net.parameters()], [m.training for m in net.modules()]
    x, y = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32), np.arange(9) % 3
    with torch.no_grad():
        first = seen.hidden_gradients(x, y)
        assert [part.shape for part in first] == [(9, 5), (9, 8), (9, 8)]
        assert all(np.array_equal(a, b) for a, b in zip(first, seen.hidden_gradients(x, y), strict=True)), "no dropout"
        assert seen.gradient(x, y).shape == (5 * 8 + 8,)
        assert TrainingMonitor().observe(1, seen, x, y, 0.5) == []
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))
    assert modes == [m.training for m in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_blocks_that_give_tuples_and_tokens(torch: Any) -> None:
    """An LSTM between, states of three axes, tensors in place of arrays, bfloat16."""
    from kappa_rtl.torch import Observed

    nn = torch.nn

    class Reader(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm, self.head = nn.Embedding(7, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.lstm(self.embed(tokens))[0][:, -1])

    net = Reader()
    seen = Observed(net, [net.lstm])
    tokens, y = torch.randint(0, 7, (5, 3)), torch.tensor([0, 1, 2, 0, 1])
    assert [part.shape for part in seen.hidden_states(tokens)] == [(5, 3, 4), (5, 3, 6)]
    assert [part.shape for part in seen.hidden_gradients(tokens, y)] == [(5, 3, 4), (5, 3, 6)]
    small = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).to(torch.bfloat16)
    found = Observed(small, [small[0]]).hidden_gradients(np.ones((2, 4)), np.zeros(2, int))
    assert all(part.dtype == np.float32 and np.isfinite(part).all() for part in found)


@pytest.mark.parametrize("form", ["sum in a block", "activation behind a block", "activation that begins a block"])
def test_what_works_in_place_changes_nothing(torch: Any, form: str) -> None:
    """States are as they were when they came, h_0 a leaf or not, gradients those by them, and x is the caller's."""
    from kappa_rtl.torch import Observed

    nn = torch.nn

    class Sum(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.inner, self.inplace = nn.Linear(4, 4), inplace

        def forward(self, h: Any) -> Any:
            if not self.inplace:
                return h + self.inner(h)
            h += self.inner(h)
            return h

    def made(inplace: bool) -> tuple[Any, list[Any]]:
        torch.manual_seed(1)
        if form == "sum in a block":
            blocks: list[Any] = [Sum(inplace), Sum(inplace)]
            return nn.Sequential(*blocks, nn.Linear(4, 3)), blocks
        if form == "activation behind a block":
            net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace), nn.Linear(4, 4), nn.ReLU(inplace), nn.Linear(4, 3))
            return net, [net[0], net[2]]
        blocks = [nn.Sequential(nn.ReLU(inplace), nn.Linear(4, 4)) for _ in range(2)]
        return nn.Sequential(*blocks, nn.Linear(4, 3)), blocks

    x, y = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), np.arange(5, dtype=np.int32) % 3
    before = x.copy()
    one, other = Observed(*made(True)), Observed(*made(False))
    for got, want in zip(one.hidden_states(x), other.hidden_states(x), strict=True):
        assert np.allclose(got, want, atol=1e-6)
    assert np.array_equal(x, before)
    if form == "sum in a block":  # which torch itself cannot differentiate: the sum overwrites what the inner layer has kept
        return
    for got, want in zip(one.hidden_gradients(x, y), other.hidden_gradients(x, y), strict=True):
        assert np.allclose(got, want, atol=1e-6)
    assert np.allclose(one.gradient(x, y), other.gradient(x, y), atol=1e-6) and np.array_equal(x, before)
    tensor = torch.tensor(before)
    one.hidden_gradients(tensor, torch.tensor(y))
    assert torch.equal(tensor, torch.tensor(before))


def test_callers_and_blocks_of_all_kinds(torch: Any) -> None:
    """Inference mode, named tuples, keywords, doubles into floats, tensors for diagnose, mappings as x."""
    from collections import namedtuple

    from kappa_rtl.torch import Observed

    nn, pair = torch.nn, namedtuple("pair", "state extra")

    class Named(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, *, state: Any) -> Any:
            return pair(self.inner(state), None)

    class Net(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = Named(), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.block(state=x["x"] if isinstance(x, dict) else x).state)

    net = Net()
    seen = Observed(net, [net.block])
    x, y = torch.randn(6, 4, dtype=torch.float64, requires_grad=True), torch.arange(6, dtype=torch.int32) % 3
    with torch.inference_mode():
        found = seen.hidden_gradients(x, y)
    assert [part.shape for part in found] == [(6, 4), (6, 4)] and all(np.abs(part).max() > 0 for part in found)
    report = diagnose(seen, [(x[:3], y[:3]), (x[3:], y[3:])], 0.9, 0.5, "BP")
    assert report.samples == 6
    assert gradient_norms(seen, {"x": x.detach().float()}, y) == pytest.approx(gradient_norms(seen, x, y), rel=1e-5)
    embedding = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"blocks\[0\] must be given floats, not torch.int64: let the blocks begin behind"):
        Observed(embedding, [embedding[0]]).hidden_states(np.zeros((2, 2), int))


def test_it_says_what_is_wrong(torch: Any) -> None:
    from kappa_rtl.torch import Observed

    nn = torch.nn
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    x, y = np.ones((2, 4)), np.zeros(2, int)
    with pytest.raises(ValueError, match="blocks must have at least one submodule, not none"):
        Observed(net, [])
    with pytest.raises(ValueError, match=r"blocks\[0\] must be a submodule of the module, not Linear"):
        Observed(net, [nn.Linear(4, 4)])
    with pytest.raises(ValueError, match=r"blocks must each run once a pass, in their order, not as \[1, 0\]"):
        Observed(net, [net[1], net[0]]).hidden_states(x)
    with pytest.raises(ValueError, match="loss must give the mean over the samples, one element, not"):
        Observed(net, [net[0]], lambda out, y: nn.functional.cross_entropy(out, y, reduction="none")).gradient(x, y)
    for weight in net[0].parameters():
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="blocks must have weights with requires_grad, not none"):
        Observed(net, [net[0]]).gradient(x, y)
