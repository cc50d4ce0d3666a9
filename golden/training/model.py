"""Models, chains of layers that the loops beside this file train: given ones, or blocks of Dense and its companions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..network import layers as chain
from ..network.checks import matrix, numbers, switches
from ..network.layers import KINDS, Activation, Dense, Layer
from ..network.losses import LOSSES
from ..network.norms import BatchNorm
from ..network.optimisers import Optimiser, make
from ..network.precision import PrecisionDict, ensure_precision_dict
from ..network.quantisers import layer_quantisers
from ..numbers import whole
from .batching import Batches
from .instrumented import train_instrumented
from .loop import Loop
from .published import Law
from .recipe import Recipe
from .schedules import Schedule
from .schedules import make as make_schedule

Array = NDArray[Any]

LOSS_NAMES = {"mse": "keras_mse", **{name: name for name in LOSSES}}
"""What a model's loss may be called, and the ``loss_mode`` that it is."""


class Dataset(Protocol):
    """What a model asks of its data: the shapes, the sample axis first."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def output_shape(self) -> tuple[int, ...]: ...


@dataclass(eq=False)
class BaseModel:
    """A chain of layers, its weights, and its two training loops.

    A subclass fills ``layers`` in its ``__post_init__`` and calls :meth:`build`. Layer names are stable, unique and none of those
    that precision reserves.

    Args:
        dataset: gives the shapes; anything with ``input_shape`` and ``output_shape``.
        loss, optimizer: of :meth:`train`: ``mse``, ``half_mse`` or ``softmax_cross_entropy``; an optimiser's name or one of them.
        name: shown by :meth:`summary`.
        seed: of the weights. None draws one, which is kept: :meth:`reinitialize_weights` gives the same weights again.
        dtype: float32 or float64, of every tensor.
    """

    dataset: Dataset
    loss: str = "mse"
    optimizer: str | Optimiser = "sgd"
    name: str = "BaseModel"
    seed: int | None = None
    dtype: DTypeLike = np.float32
    layers: list[Layer] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.loss not in LOSS_NAMES:
            raise ValueError(f"loss must be one of {', '.join(LOSS_NAMES)}, not {self.loss!r}")
        try:
            dtype: Any = np.dtype(self.dtype)
        except TypeError:
            dtype = repr(self.dtype)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {dtype}")
        make(self.optimizer)
        if self.seed is not None:
            self.seed = whole("seed", self.seed, 0)
        if not (hasattr(self.dataset, "input_shape") and hasattr(self.dataset, "output_shape")):
            raise ValueError(f"dataset must have an input_shape and an output_shape, not {self.dataset!r}")
        self.input_shape = tuple(self.dataset.input_shape[1:])
        self.output_shape = tuple(self.dataset.output_shape[1:])
        if not 1 <= len(self.input_shape) <= 3 or len(self.output_shape) != 1:
            raise ValueError(
                f"dataset must hold vectors or images, and vectors to be told, not samples of shape {self.input_shape} and "
                f"{self.output_shape}"
            )
        if self.seed is None:
            self.seed = int(np.random.SeedSequence().generate_state(1)[0])

    def build(self) -> None:
        """Allocate the layers and draw their weights."""
        names = [layer.name for layer in self.layers]
        PrecisionDict({}).validate(names)
        if len(set(names)) != len(names):
            raise ValueError(f"layer names must be unique, not {', '.join(names)}")
        rng = np.random.default_rng(self.seed)
        shape, width = self.input_shape, self.inputs
        for layer in self.layers:
            shape = layer.take(shape)
            width = layer.build(width, self.dtype, rng)
        if shape != self.output_shape:
            raise ValueError(f"the last layer must have {self.output_shape[0]} outputs, as the dataset has, not {shown(shape)}")

    @property
    def inputs(self) -> int:
        """The elements of a row, whatever its shape is."""
        return math.prod(self.input_shape)

    # ---------------------------------------------------------------- weights

    @property
    def theta(self) -> Array:
        """The trainable variables as one vector (P,), a copy: by layer, kernel and bias or gamma and beta, in C order."""
        return chain.parameters(self.layers)

    @theta.setter
    def theta(self, flat: Array) -> None:
        vector = np.asarray(flat, self.dtype)
        if vector.shape != (chain.size(self.layers),):
            raise ValueError(f"theta must have shape ({chain.size(self.layers)},), not {vector.shape}")
        chain.assign(self.layers, vector)

    def reinitialize_weights(self, seed: int | None = None) -> None:
        """Draw the weights anew and forget the moving statistics; the model's own seed gives the weights that it began with.

        Args:
            seed: another seed, which the model keeps.
        """
        seed = self.seed if seed is None else whole("seed", seed, 0)
        rng = np.random.default_rng(seed)
        self.seed = seed
        for layer in self.layers:
            layer.initialise(rng)

    def get_weights(self) -> dict[str, Array]:
        """Copies of all variables, moving statistics too, by ``layer/variable``."""
        return {
            f"{layer.name}/{name}": value.copy() for layer in self.layers for name, value in (layer.params | layer.state).items()
        }

    def set_weights(self, weights: Mapping[str, Array] | Sequence[Array]) -> None:
        """Set variables, by ``layer/variable``, or all of them in the order of :meth:`get_weights`.

        Raises:
            ValueError: an unknown name, a wrong count, shape or dtype, or a value that is not finite; nothing is set then.
        """
        there = self.get_weights()
        if not isinstance(weights, Mapping):
            if len(weights) != len(there):
                raise ValueError(f"weights must be {len(there)} arrays ({', '.join(there)}), not {len(weights)}")
            weights = dict(zip(there, weights, strict=True))
        made = {}
        for name, value in weights.items():
            if name not in there:
                raise ValueError(f"weights must be of {', '.join(there)}, not {name!r}")
            array = numbers(name, value)
            if array.dtype.kind == "b" or array.shape != there[name].shape:
                raise ValueError(f"{name} must be numbers of shape {there[name].shape}, not {array.dtype} of {array.shape}")
            with np.errstate(over="ignore"):
                made[name] = array.astype(self.dtype)
            if not np.isfinite(made[name]).all():
                raise ValueError(f"{name} must be finite in {np.dtype(self.dtype)}")
        for layer in self.layers:
            for kind in (layer.params, layer.state):
                kind.update({name: made[f"{layer.name}/{name}"] for name in kind if f"{layer.name}/{name}" in made})

    def summary(self) -> str:
        """Print, and return, a table of the layers."""
        rows, shape = [("layer", "type", "output", "parameters")], self.input_shape
        for layer in self.layers:
            shape = layer.take(shape)
            count = sum(value.size for value in layer.params.values())
            rows.append((layer.name, type(layer).__name__, f"(rows, {shown(shape)})", f"{count:,}"))
        rows.append(("total", "", "", f"{self.theta.size:,}"))
        sizes = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{self.name}: input model_input (rows, {shown(self.input_shape)}), {np.dtype(self.dtype)}, seed {self.seed}"]
        lines += ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows]
        text = "\n".join(lines)
        print(text)
        return text

    # ---------------------------------------------------------------- use

    def predict(self, X: Array, precision_dict: PrecisionDict | Mapping[str, Any] | None = None) -> Array:
        """The outputs (rows, outputs) for inputs (rows, inputs), with moving statistics, through the quantisers if given."""
        precision = ensure_precision_dict(precision_dict)
        quantisers = layer_quantisers(self.layers, precision) if precision else None
        inputs = matrix("X", X, self.inputs, self.dtype, self.input_shape)
        return chain.forward(self.layers, inputs, training=False, quantisers=quantisers)[0]

    def train(
        self,
        X: Array,
        Y: Array,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        *,
        drop_last: bool = False,
        schedule: str | Schedule | None = None,
        **recipe: Any,
    ) -> dict[str, NDArray[np.float64]]:
        """The plain loop: the model's own loss and optimiser, batches shuffled each epoch by its seed, nothing quantised.

        Args:
            drop_last, schedule: as in :func:`~kappa_rtl.golden.training.instrumented.train_instrumented`.
            recipe: fields of :class:`~kappa_rtl.golden.training.recipe.Recipe`.

        Returns:
            ``loss`` of every batch before its update, and ``skipped``, 1 where no step was made.

        Raises:
            ValueError: before the first step, with the argument, its value and the rule.
        """
        batches = Batches(
            X,
            Y,
            widths=(self.inputs, self.output_shape[0]),
            shape=self.input_shape,
            dtype=self.dtype,
            epochs=epochs,
            batch_size=batch_size,
            seed=self.seed or 0,
            drop_last=drop_last,
        )
        if any(isinstance(layer, BatchNorm) for layer in self.layers):
            batches.refuse_single("batch normalisation")
        law = Law(eta=learning_rate, enabled=False)
        loop = Loop(self, None, law=law, optimiser=self.optimizer, loss_mode=LOSS_NAMES[self.loss], recipe=Recipe(**recipe))
        loop.set_schedule(make_schedule(schedule, batches.steps))
        loop.begin()
        rows = [loop.step(x, y).row for x, y in batches]
        return {name: np.array([row[name] for row in rows], np.float64) for name in ("loss", "skipped")}

    train_instrumented = train_instrumented


@dataclass(eq=False)
class LinearBlockModel(BaseModel):
    """Blocks of Dense, activation and batch normalisation; and one bare Dense if the last block is not as wide as the data.

    Layers are called ``dense0``, ``activation0``, ``batchnorm0``, ``dense1``, ...

    Args:
        num_hidden: the units of each block.
        activation: of every block, one of the layers' kinds; None for none.
        use_batchnorm, use_bias: of every block; the bare Dense has a bias as the others have.
        gain_from_one: of the batch normalisations.
        head: let the bare Dense follow even if the last block is as wide as the data, whose activation would else come last.
    """

    num_hidden: list[int] = field(default_factory=lambda: [64, 64])
    activation: str | None = None
    use_batchnorm: bool = False
    use_bias: bool = True
    name: str = "LinearBlockModel"
    head: bool = False
    gain_from_one: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.num_hidden
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise ValueError(f"num_hidden must be a list of widths, not {self.num_hidden!r}")
        switches(use_batchnorm=self.use_batchnorm, use_bias=self.use_bias, head=self.head, gain_from_one=self.gain_from_one)
        if self.activation is not None and (not isinstance(self.activation, str) or self.activation not in KINDS):
            raise ValueError(f"activation must be None or one of {', '.join(KINDS)}, not {self.activation!r}")
        for i, units in enumerate(self.num_hidden):
            try:
                width = whole("num_hidden", units, 1)
            except ValueError:
                raise ValueError(f"num_hidden must hold integers of at least 1, not {units!r}") from None
            self.layers.append(Dense(f"dense{i}", width, self.use_bias))
            if self.activation is not None:
                self.layers.append(Activation(f"activation{i}", self.activation))
            if self.use_batchnorm:
                self.layers.append(BatchNorm(f"batchnorm{i}", gain_from_one=self.gain_from_one))
        outputs = self.output_shape[0]
        if self.head or not self.num_hidden or self.num_hidden[-1] != outputs:
            self.layers.append(Dense(f"dense{len(self.num_hidden)}", outputs, self.use_bias))
        self.build()


@dataclass(eq=False)
class Sequential(BaseModel):
    """The layers that are given, one behind the other; they are this model's from then on.

    Args:
        chain: the layers, each with a name of its own.
        shape: of a row of the data, where that is kept flat: (height, width, channels) of an image, channels fastest.

    Raises:
        ValueError: a layer that cannot have what the one before it gives, or that has been built for another model; outputs that
            are not the dataset's.
    """

    chain: Sequence[Layer] = ()
    shape: tuple[int, ...] | None = None
    name: str = "Sequential"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.chain, (list, tuple)):
            raise ValueError(f"chain must be a list of layers, not {self.chain!r}")
        if self.shape is not None:
            if not isinstance(self.shape, (list, tuple)):
                raise ValueError(f"shape must be that of a row, such as (8, 8, 1), not {self.shape!r}")
            shape = tuple(whole("shape", size, 1) for size in self.shape)
            if not 1 <= len(shape) <= 3 or math.prod(shape) != self.inputs:
                raise ValueError(f"shape must be that of rows of {self.inputs} elements, not {self.shape}")
            self.input_shape = shape
        for layer in self.chain:
            if not isinstance(layer, Layer):
                raise ValueError(f"chain must hold layers, not {layer!r}")
            if layer.width is not None:
                raise ValueError(f"chain must hold layers of no other model, not {layer.name}, which has been built")
        self.layers = list(self.chain)
        self.build()


def shown(shape: tuple[int, ...]) -> str:
    """``8, 8, 1``."""
    return ", ".join(map(str, shape))
