"""The batches of a run: which rows make each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..network.checks import matrix, switches
from ..network.data import batches
from ..numbers import whole

Array = NDArray[Any]


class Batches:
    """All rows once an epoch, in batches; or the batches that a stream gives.

    Args:
        X, Y: (rows, inputs) and (rows, outputs) of these ``widths``, finite in this dtype; rows of X may have this ``shape``.
        epochs, batch_size, shuffle, seed: the last batch of an epoch may be short.
        drop_last: leave it out then.
        stream: batches (x, y) in the place of X and Y's.

    Attributes:
        steps: how many batches there are; None of a stream.
        rest: the rows of the short batch at the end of each epoch; 0 without one.
        minibatch: whether a batch is less than all rows.

    Raises:
        ValueError: names the argument, its value and the rule; from the iterator too, of a stream's batch that does not fit.
    """

    def __init__(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        widths: tuple[int, int],
        shape: tuple[int, ...] = (),
        dtype: DTypeLike,
        epochs: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        stream: Iterable[tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> None:
        self.inputs, self.targets = matrix("X", X, widths[0], dtype, shape), matrix("Y", Y, widths[1], dtype)
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"Y must have a row for each of the {len(self.inputs)} of X, not {len(self.targets)}")
        self.epochs, self.batch_size = whole("epochs", epochs, 1), whole("batch_size", batch_size, 1)
        self.seed = whole("batch_seed", seed, 0)
        switches(shuffle=shuffle, drop_last=drop_last)
        self.shuffle, self.drop_last, self.stream = bool(shuffle), bool(drop_last), stream
        rows = len(self.inputs)
        if drop_last and stream is not None:
            raise ValueError("drop_last must be False where a stream gives the batches, not True")
        if drop_last and rows < self.batch_size:
            raise ValueError(f"drop_last must be False for {rows} rows in batches of {self.batch_size}, not True: none is left")
        short = rows % self.batch_size
        self.rest = 0 if drop_last or stream is not None else short
        self.steps = None if stream is not None else self.epochs * (rows // self.batch_size + bool(self.rest))
        self.minibatch = self.batch_size < rows
        self._least, self._shape = 1, shape

    def refuse_single(self, what: str) -> None:
        """No batch may have one row alone, for the sake of ``what``."""
        self._least = 2
        rows = len(self.inputs)
        if self.stream is None and 1 in (self.batch_size, self.rest, rows):
            raise ValueError(
                f"batch_size must leave no batch of one row for {what}, not {self.batch_size} of {rows} rows"
                f"{'; drop_last leaves the last one out' if self.rest == 1 < rows else ''}"
            )

    def settings(self) -> dict[str, Any]:
        """What tells these batches from others, beside the data."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "batch_seed": self.seed,
            "drop_last": self.drop_last,
            "stream": self.stream is not None,
        }

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        if self.stream is None:
            for rows in batches(len(self.inputs), self.epochs, self.batch_size, shuffle=self.shuffle, seed=self.seed):
                if len(rows) == self.batch_size or not self.drop_last:
                    yield self.inputs[rows], self.targets[rows]
            return
        for batch in self.stream:
            x, y = (
                matrix(f"stream {name}", given, whole.shape[1], whole.dtype, shape)
                for name, given, whole, shape in zip("xy", batch, (self.inputs, self.targets), (self._shape, ()), strict=True)
            )
            if len(x) < self._least:
                raise ValueError(f"stream x must have at least {self._least} rows, not {np.shape(x)[0]}")
            yield x, y
