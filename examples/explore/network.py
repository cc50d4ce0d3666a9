"""A network in torch for `kappa-rtl explore`: handwritten digits, 64-32-10, plain SGD on batches of 128."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from kappa_rtl.torch import Task

STEPS, BATCH, RATE = 300, 128, 0.3


def digits(seed: int) -> Task:
    """A fresh network with its first weights and its split of the data, both by the seed."""
    generator = torch.Generator().manual_seed(seed)
    data = load_digits()
    pixels, labels = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(pixels), generator=generator)
    held, trained = order[:360], order[360:]
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    batches = [trained[torch.randperm(len(trained), generator=generator)[:BATCH]] for _ in range(STEPS)]

    def loss(step: int) -> torch.Tensor:
        rows = batches[step]
        return cross_entropy(model(pixels[rows]), labels[rows])

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(pixels[held]).argmax(dim=1) == labels[held]).double().mean())

    return Task(model, optimizer, loss, accuracy, STEPS)
