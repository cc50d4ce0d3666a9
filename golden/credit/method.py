"""What all credit methods have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree
from ..network.checks import counts, seeds, switches
from ..network.optimisers import Adam
from ..numbers import is_number
from .nets import Net
from .network import Index, Network, Trace

Array = NDArray[Any]

CODES = ("none", "eT", "deltaL", "eT_hL", "deltaL_hL")


class Method(Stateful):
    """A guess at the credit of every state.

    Args:
        network: what it will be used on; only its shape is kept.
        seed: of all that is random in the method.

    Attributes:
        name: in tables and on the command line.
        learns: whether :meth:`fit` does anything.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = False

    def __init__(self, network: Network, *, seed: int = 0) -> None:
        seeds(seed=seed)
        self.depth, self.width, self.classes = network.depth, network.width, network.classes
        self.rng = np.random.default_rng([seed, 1])

    def fit(self, network: Network, trace: Trace) -> dict[str, float]:
        """Train the estimator on a batch, one step.

        Returns:
            the parts of its loss before the step, which is their sum: ``bridge``, how far it is from what it learns below the
            last state, and others; nothing where there is nothing to train.
        """
        return {}

    def state_dict(self) -> State:
        """Where its random numbers are; what is drawn once follows from the seed."""
        return {"name": self.name, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a method made alike."""
        agree(state, self.state_dict(), "name", free=["rng"])
        self.rng.bit_generator.state = state["rng"]

    @abstractmethod
    def credit(self, network: Network, trace: Trace) -> Array:
        """The credit of each sample's states, (L+1, n, d), on the scale of dloss/dh_l."""


class Estimator(Method):
    """A method with a small network that learns from batches, by Adam.

    Args:
        s_type: the code that it is given: ``none``; ``eT``, the error; ``deltaL``, dloss/dh_L; with ``_hL`` also h_L.
        hidden: the widths of the net's hidden layers.
        learning_rate: Adam's.
        rows: how many pairs of sample and layer a step trains on, drawn at random; None for all.
        kind: the net's activation.
        layer_norm: whether the net sees h layer-normalised.
        single: compute the net in float32; for large runs.

    Raises:
        ValueError: names the argument, the value and the rule.
    """

    learns = True
    skip = False  #: add h to the net's outputs

    def __init__(
        self,
        network: Network,
        *,
        seed: int = 0,
        s_type: str = "eT",
        hidden: tuple[int, ...] = (64, 64),
        learning_rate: float = 1e-3,
        rows: int | None = None,
        kind: str = "gelu",
        layer_norm: bool = True,
        single: bool = False,
    ) -> None:
        super().__init__(network, seed=seed)
        if s_type not in CODES:
            raise ValueError(f"s_type must be one of {', '.join(CODES)}, not {s_type!r}")
        real("learning_rate", learning_rate, above=0)
        switches(layer_norm=layer_norm, single=single)
        counts(**{f"hidden[{i}]": width for i, width in enumerate(hidden)}, **({} if rows is None else {"rows": rows}))
        self.s_type, self.learning_rate, self.rows = s_type, learning_rate, rows
        d, c = network.width, network.classes
        code = {"none": 0, "eT": c, "deltaL": d, "eT_hL": c + d, "deltaL_hL": 2 * d}[s_type]
        self.net = Net(
            d,
            code,
            self.outputs(d),
            hidden=tuple(hidden),
            rng=self.rng,
            layer_norm=layer_norm,
            skip=self.skip,
            kind=kind,
            dtype=np.float32 if single else np.float64,
        )
        self.adam = Adam()

    def state_dict(self) -> State:
        """Also the net's weights and Adam's state."""
        return super().state_dict() | {"theta": self.net.theta.copy(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        agree(state, self.state_dict(), "name", free=["rng", "adam"])
        self.adam.load_state_dict(state["adam"])
        self.net.theta[:] = state["theta"]
        self.rng.bit_generator.state = state["rng"]

    def outputs(self, width: int) -> int:
        """How many outputs the net has, for states of this width."""
        return width

    def code(self, trace: Trace) -> Array | None:
        """The codes of the batch, (n, code)."""
        if self.s_type == "none":
            return None
        first, _, last = self.s_type.partition("_")
        code = trace.error if first == "eT" else trace.delta
        return np.concatenate([code, trace.states[-1]], axis=1) if last else code

    def pairs(self, trace: Trace) -> tuple[Index, Index]:
        """The samples and layers below L that this step trains on."""
        n = trace.states.shape[1]
        if self.rows is None:
            return np.tile(np.arange(n), self.depth), np.repeat(np.arange(self.depth), n)
        return self.rng.integers(0, n, self.rows), self.rng.integers(0, self.depth, self.rows)

    def at(self, codes: Array | None, sample: Index) -> Array | None:
        """The codes of these samples."""
        return None if codes is None else codes[sample]

    def times(self, layer: Index) -> Array:
        """t = l / L."""
        return layer / self.depth

    def descend(self, gradient: Array) -> None:
        """One step of Adam."""
        self.net.move(-self.learning_rate * self.adam.propose(gradient))

    def everywhere(self, trace: Trace) -> tuple[Array, Array, Array | None]:
        """States, times and codes of all of the batch, layer by layer: ((L+1) n, d), ((L+1) n,), ((L+1) n, code)."""
        n = trace.states.shape[1]
        codes = self.code(trace)
        repeated = None if codes is None else np.tile(codes, (self.depth + 1, 1))
        return trace.states.reshape(-1, self.width), np.repeat(np.arange(self.depth + 1) / self.depth, n), repeated


def real(name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf) -> None:
    """Refuse what is no finite number of at least ``least`` and greater than ``above``."""
    if not is_number(value) or not math.isfinite(value) or value < least or value <= above:
        rule = f"at least {least:g}" if least > -math.inf else f"greater than {above:g}"
        raise ValueError(f"{name} must be finite and {rule}, not {value!r}")
