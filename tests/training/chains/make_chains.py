"""Made ``chains.npz``: two networks in torch, their outputs, losses, gradients and Hessian-vector products, in float64.

    .venv-torch/bin/python tests/training/chains/make_chains.py

Kernels of convolutions are kept as (size * size * channels, filters), those of linear layers as (inputs, outputs), and images
with the channels last, as the layers here have them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(20)
ROWS = 4


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(rng.normal(size=shape) * 0.5, requires_grad=True) for name, shape in shapes.items()}


def same(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Zeros as Keras's padding "same" has them."""
    margins = []
    for length in (x.shape[3], x.shape[2]):
        missing = max(0, (-(-length // stride) - 1) * stride + size - length)
        margins += [missing // 2, missing - missing // 2]
    return F.pad(x, margins)


def kernel(flat: torch.Tensor, size: int, channels: int) -> torch.Tensor:
    return flat.reshape(size, size, channels, -1).permute(3, 2, 0, 1)


def images(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    z = x.reshape(ROWS, 6, 5, 2).permute(0, 3, 1, 2)
    z = F.conv2d(same(z, 3, 1), kernel(p["conv0/kernel"], 3, 2), p["conv0/bias"])
    z = F.batch_norm(z, None, None, p["norm0/gamma"], p["norm0/beta"], training=True, eps=1e-3)
    z = F.max_pool2d(F.relu(z), 2, stride=1)
    z = F.conv2d(same(z, 3, 2), kernel(p["conv1/kernel"], 3, 3), stride=2)
    z = F.avg_pool2d(torch.tanh(z), 2, stride=1)
    z = z.permute(0, 2, 3, 1).reshape(ROWS, -1)
    return z @ p["dense0/kernel"] + p["dense0/bias"]


def words(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    z = F.layer_norm(p["words/table"][x.long()], (4,), p["norm0/gamma"], p["norm0/beta"], eps=1e-5)
    return z.reshape(ROWS, -1) @ p["dense0/kernel"] + p["dense0/bias"]


def made(name: str, network, shapes: dict[str, tuple[int, ...]], x: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    p = tensors(shapes)
    y = F.one_hot(torch.tensor(rng.integers(0, classes, ROWS)), classes).double()
    outputs = network(p, torch.tensor(x))
    loss = -(y * F.log_softmax(outputs, dim=1)).sum() / ROWS
    first = torch.autograd.grad(loss, list(p.values()), create_graph=True)
    along = [torch.tensor(rng.normal(size=value.shape)) for value in p.values()]
    second = torch.autograd.grad(sum((g * v).sum() for g, v in zip(first, along, strict=True)), list(p.values()))

    def flat(parts) -> np.ndarray:
        return np.concatenate([part.detach().numpy().ravel() for part in parts])

    found = {"x": x, "y": y.numpy(), "outputs": outputs.detach().numpy(), "loss": loss.detach().numpy()}
    found |= {"theta": flat(p.values()), "gradient": flat(first), "along": flat(along), "product": flat(second)}
    return {f"{name}/{key}": value for key, value in found.items()}


everything = made(
    "images",
    images,
    {
        "conv0/kernel": (18, 3), "conv0/bias": (3,), "norm0/gamma": (3,), "norm0/beta": (3,),
        "conv1/kernel": (27, 2), "dense0/kernel": (4, 5), "dense0/bias": (5,),
    },
    rng.normal(size=(ROWS, 60)),
    5,
)  # fmt: skip
everything |= made(
    "words",
    words,
    {"words/table": (7, 4), "norm0/gamma": (4,), "norm0/beta": (4,), "dense0/kernel": (12, 3), "dense0/bias": (3,)},
    rng.integers(0, 7, (ROWS, 3)).astype(np.float64),
    3,
)
np.savez_compressed(Path(__file__).with_name("chains.npz"), **everything)
