"""Small torch models, optimisers and batches that the tests of the adapters share; torch has to be there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.engines import shards
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.segments import slices
from kappa_rtl.golden.shard import Shard
from kappa_rtl.golden.throttle import Throttle

F = torch.nn.functional
ENGINES = ["numpy", "torch", "numba"] if shards("auto", 1) is not Shard else ["numpy", "torch"]


def mlp() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Linear(8, 3))


class Residual(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A small network of the kind of a ResNet: convolutions, batch norms, a sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
        self.inner, self.second = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        h = F.relu(self.norm(self.stem(x.reshape(-1, 1, 2, 3))))
        return self.head((h + F.relu(self.second(self.inner(h)))).mean((2, 3)))


class Tied(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A transformer layer between an embedding and its own transpose."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(7, 8)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = torch.nn.Linear(8, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Any) -> Any:
        tokens = (x.abs() * 10).long() % 7
        return self.head(self.layer(self.embedding(tokens))).mean(1)[:, :3]


MODELS: dict[str, Callable[[], Any]] = {"mlp": mlp, "residual": Residual, "tied": Tied}
OPTIMISERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.25),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}


def batches(count: int, seed: int = 1) -> Iterator[tuple[Any, Any]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(16, 6, generator=generator)
        yield x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loss_of(model: Any, batch: tuple[Any, Any]) -> Any:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(model: Any, optimizer: Any, data: Iterator[tuple[Any, Any]]) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()


def flat(tensors: Any) -> Any:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).double().numpy()


class Twin:
    """The same training by hand: a float copy of model and optimiser proposes, a golden unit moves the weights."""

    def __init__(self, model: Any, make: Callable[[Any], Any], config: ThrottleConfig, gains: Any = ()) -> None:
        self.model, self.config = copy.deepcopy(model), config
        self.optimizer = make(self.model.parameters())
        self.parameters = list(self.model.parameters())
        self.offset = np.concatenate([np.full(p.numel(), float(name in gains)) for name, p in self.model.named_parameters()])
        self.unit = Throttle(config, self.codes(flat(self.parameters) - self.offset, "weight"), codes=True)
        self.put()

    def codes(self, vector: Any, grid: str) -> Any:
        """Values on the grid of that name, those of each segment on its own."""
        if not self.config.segments:
            return quantise(vector, getattr(self.config.grids, grid))
        parts = slices(self.config.segments)
        return np.concatenate([quantise(vector[place], getattr(self.config.grids_at(one.scale), grid)) for one, place in parts])

    def put(self) -> None:
        whole, place = self.unit.weights + self.offset, 0
        for p in self.parameters:
            part = torch.from_numpy(whole[place : place + p.numel()]).reshape(p.shape)
            p.data.copy_(part)
            place += p.numel()

    def step(self, batch: tuple[Any, Any], rate: float | None = None) -> Any:
        self.optimizer.zero_grad()
        loss_of(self.model, batch).backward()
        gradient = self.codes(flat([p.grad for p in self.parameters]), "gradient")
        before = [p.detach().clone() for p in self.parameters]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = 1.0
        self.optimizer.step()
        for group, former in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = former
        proposal = flat([old - p.detach() for old, p in zip(before, self.parameters, strict=True)])
        self.unit.set_rate(rates[0] if rate is None else rate)
        record = self.unit.step(gradient, self.codes(proposal, "direction"), codes=True)
        self.put()
        return record
