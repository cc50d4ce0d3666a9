"""The networks of experiments that are no blocks of Dense layers, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ....golden.network.data import Problem
from ....golden.network.images import AveragePool2D, Conv2D, Flatten, MaxPool2D
from ....golden.network.layers import Activation, Dense
from ....golden.network.norms import BatchNorm
from ....golden.training.model import BaseModel, LinearBlockModel, Sequential


def _dense(problem: Problem, seed: int) -> BaseModel:
    """64-32-10 on digits, with relu."""
    return LinearBlockModel(problem, num_hidden=[32], activation="relu", head=True, seed=seed)


def _convolutional(problem: Problem, seed: int, gain_from_one: bool) -> BaseModel:
    """Two convolutions with batch normalisation on digits as 8x8 images, and one Dense: 1,946 weights in 8 tensors."""
    chain = [
        Conv2D("conv0", 6, use_bias=False),
        BatchNorm("norm0", gain_from_one=gain_from_one),
        Activation("relu0", "relu"),
        MaxPool2D("pool0"),
        Conv2D("conv1", 12, use_bias=False),
        BatchNorm("norm1", gain_from_one=gain_from_one),
        Activation("relu1", "relu"),
        AveragePool2D("pool1"),
        Flatten("flat"),
        Dense("dense", problem.targets.shape[1]),
    ]
    return Sequential(problem, chain=chain, shape=(8, 8, 1), seed=seed)


NETWORKS: dict[str, Callable[[Problem, int], BaseModel]] = {
    "dense": _dense,
    "conv": partial(_convolutional, gain_from_one=False),
    "conv_gain": partial(_convolutional, gain_from_one=True),
}
"""What makes a network for a problem and a seed; ``gain``: the norms' gains are kept as gain - 1."""
