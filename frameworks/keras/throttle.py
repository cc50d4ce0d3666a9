"""The throttle around a Keras optimiser: itself one, with which models are compiled, fitted, saved and loaded as with any."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import keras
import numpy as np

from ...golden.checkpoint import of_bytes, to_bytes
from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed
from ...golden.training.history import FitHistory
from ...golden.training.linear import counts
from ..rows import Rows
from .optimiser import at_rate_one, check_optimizer, check_variables, largest_rate, rate_of

KIND = "KerasThrottle"
STATE = "throttle"
"""Where the throttle's state is among the variables of a saved optimiser."""

MISSING = ("keep", "zero")
OF_INNER = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay")
GAINS = ("gamma", "scale")
"""What Keras calls the gains of norm layers."""


@dataclass
class Log:
    """What the steps so far have come to."""

    steps: int = 0
    counts: dict[str, int] = field(default_factory=lambda: counts(None))
    last: dict[str, float] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)


class GlobalThrottle(keras.optimizers.Optimizer):
    """One alpha on everything that a Keras optimiser updates, decided and applied by the golden unit in fixed point.

    In a step the gradients are taken as they come, before the optimiser clips them; it makes its own step at a rate of 1, and
    what that does to the weights is the proposal D; the unit decides alpha from the gradients' change and its own motion, moves
    the weights by ``-alpha * eta * D`` on their grids, and they are written back. So clipping, momentum, Adam and decoupled
    weight decay follow by themselves. eta is the optimiser's rate: a number, a schedule, or what a callback makes of it.

    It needs Keras' torch backend. Where the training step is compiled (``jit_compile=True``), this part of it is run as ever.

    Args:
        optimizer: of Keras, new. Its momentum is kept without the rate, as torch does it.
        law: a published law, its parameters among ``settings``.
        formats: a preset, or ``{pattern: {field: value}}`` with shell patterns of variable paths such as ``dense/kernel``; fields
            are ``gradient``, ``weight``, ``update``, ``direction``, ``residual_bits``, ``random_bits``, ``seed``, ``lanes``,
            ``scale`` and ``gain_from_one``. Later patterns override earlier ones, and all of them a preset of 16 bits. Variables
            of equal formats are a unit; those with a ``scale``, bits by which their grids are finer than that, are segments of
            it. The gains of norm layers, vectors called ``gamma`` or ``scale``, are stored from 1.
        eta_max: the largest rate that will come; by default the present one, or the largest that a schedule of Keras names.
        missing: a variable without a gradient is taken to ``keep`` its former one, or to have ``zero``.
        engine: ``numpy``, ``numba``, ``torch`` (on the variables' device) or ``auto``: torch on a device, else numba if there.
        threads: of numba.
        measure: after every so many steps compare the applied change with the proposal; 0 for never.
        name: of the optimiser.
        settings: other fields of a :class:`~kappa_rtl.golden.config.ThrottleConfig`, such as ``chi`` or ``mantissa_bits``.

    Attributes:
        inner_optimizer: the optimiser.
        unit: what holds the weights, once the variables are known.

    Raises:
        ValueError: names the argument or variable, the value and the rule, before any weight has changed.

    Example::

        model.compile(optimizer=GlobalThrottle(keras.optimizers.SGD(0.1)), loss="mse")
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        law: str = "stability_margin",
        formats: str | Mapping[str, Mapping[str, Any]] = "sq16",
        eta_max: float | None = None,
        missing: str = "keep",
        engine: str = "auto",
        threads: int = 1,
        measure: int = 1,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        if (backend := keras.backend.backend()) != "torch":
            raise ValueError(f"backend must be torch, not {backend!r}: set KERAS_BACKEND=torch before keras is imported")
        from ..torch.plan import check_settings, table_of
        from ..torch.throttle import ENGINES

        check_optimizer(optimizer)
        for argument, value, known in (("missing", missing, MISSING), ("engine", engine, ENGINES)):
            if value not in known:
                raise ValueError(f"{argument} must be one of {', '.join(known)}, not {value!r}")
        if isinstance(measure, bool) or not isinstance(measure, int) or measure < 0:
            raise ValueError(f"measure must be an integer of at least 0, not {measure!r}")
        most = largest_rate(optimizer, eta_max)
        table_of(formats)
        check_settings(law, settings)
        ThrottleConfig.of_law(law, elements=1, eta=most, eta_max=most, **settings)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = optimizer
        self._given = _Given(law, formats, most, missing, engine, threads, measure, settings)
        self.unit: Any = None
        self.log = Log()

    # ---------------------------------------------------------------- as any optimiser

    def build(self, variables: Sequence[Any]) -> None:
        """Make the unit, and bring the variables onto their grids.

        Raises:
            ValueError: formats that name nothing, a variable that cannot be on its grid; names pattern or variable and rule.
        """
        if self.built:
            return
        from ..torch.plan import plan_of_parameters
        from ..torch.throttle import unit_of

        variables, given = list(variables), self._given
        check_variables(variables)
        plan = plan_of_parameters(
            [(variable.path, variable.value, 0) for variable in variables],
            gains={id(v.value) for v in variables if v.name in GAINS and len(v.shape) == 1},
            formats=given.formats,
            eta=given.eta_max,
            eta_max=given.eta_max,
            law=given.law,
            settings=given.settings,
            named_segments=False,  # a path is another one when the model is loaded
        )
        plan.refuse_idle(plan.idle)
        self.inner_optimizer.build(variables)
        super().build(variables)
        self.unit = unit_of(plan, given.engine, given.threads)
        for path, beyond in self.unit.beyond.items():
            if beyond:
                _warn(f"{path}: {beyond} weights lie beyond the rails of their format, and were brought onto them")

    @property
    def variables(self) -> list[Any]:
        """Those of the optimiser within, too; the unit's state is no variable."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """The steps of the optimiser within."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """The rate of the optimiser within, eta; at most ``eta_max``."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self.inner_optimizer.learning_rate = rate

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Of the optimiser within, whose decay it is."""
        self.inner_optimizer.exclude_from_weight_decay(var_list=var_list, var_names=var_names)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OF_INNER and getattr(self, "_given", None) is not None:
            raise ValueError(f"{name} must be set on inner_optimizer, which makes the step, not on the throttle")
        super().__setattr__(name, value)

    def scale_loss(self, loss: Any) -> Any:
        """By the ``loss_scale_factor`` of the optimiser within."""
        return self.inner_optimizer.scale_loss(loss)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """Refused: the unit's state is no variable."""
        raise ValueError("stateless_apply must not be called: the throttle has a state of its own; call apply")

    # ---------------------------------------------------------------- a step

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Make a step.

        Args:
            grads: a gradient for each variable, or None where there is none; as :meth:`scale_loss` had them scaled.
            trainable_variables: those of the gradients; by default all.

        Raises:
            ValueError: a gradient that is not finite, a rate beyond ``eta_max``, variables that are others than those of the
                first step; names the variable or argument, the value and the rule. The weights stay where they are.
        """
        import torch

        # The unit has a state that a compiled step would not see change.
        torch.compiler.disable(self._apply)(grads, trainable_variables)

    def _apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None) -> None:
        import torch

        if trainable_variables is None and not self.built:
            raise ValueError("trainable_variables must be given to the first step, or build(variables) be called before it")
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        gradients = list(grads)
        if len(gradients) != len(variables):
            raise ValueError(f"grads must be as many as the variables, {len(variables)}, not {len(gradients)}")
        if all(gradient is None for gradient in gradients):
            raise ValueError("grads must hold a gradient, not None alone")
        if not self.built:
            self.build(variables)
        self._check_variables_are_known(variables)
        with torch.no_grad():
            self._step(
                [
                    None if gradient is None else keras.ops.convert_to_tensor(gradient, dtype=variable.dtype)
                    for gradient, variable in zip(gradients, variables, strict=True)
                ],
                variables,
            )

    def _step(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        unit, log, measure = self.unit, self.log, self._given.measure
        for path in unit.refresh():
            _warn(f"{path} was changed between two steps, and is read anew")
        eta = rate_of(self.inner_optimizer)
        if eta != float(unit.throttle.rate):
            unit.throttle.set_rate(eta)
        scale = self.inner_optimizer.loss_scale_factor
        taken = {
            id(variable.value): gradient if scale is None else gradient / scale
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        }
        unit.absorb(keep=self._given.missing == "keep", gradients=taken)
        try:
            with at_rate_one(self.inner_optimizer):
                self.inner_optimizer.apply(gradients, variables)
            step = unit.move([1.0], eta, measure=bool(measure) and log.steps % measure == 0)
        except BaseException:
            unit.write()  # the weights before the step, in the place of the proposal
            raise
        from ..torch.record import row_of

        log.last, log.counts = row_of(step, eta, unit, log.counts)
        log.rows.append(log.last)
        log.steps += 1

    # ---------------------------------------------------------------- what came of it

    def metrics(self) -> dict[str, float]:
        """The last step in numbers, by the names that all histories have; empty before the first."""
        from ..torch.record import shown

        return shown(self.log.last)

    @property
    def history(self) -> FitHistory:
        """All steps since the throttle was made or loaded: ``save``, ``to_csv``, ``to_frame`` and ``plot_results`` as of any run.

        Raises:
            ValueError: the variables are not known yet.
        """
        from ..torch.record import history_of

        self._check_built()
        return history_of(self.log.rows, self.unit)

    # ---------------------------------------------------------------- configuration and state

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON has them, with the largest rate as it was found when the throttle was made."""
        given = vars(self._given)
        settings = {name: _plain(value) for name, value in given["settings"].items()}
        return {
            "name": self.name,
            "optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            **{name: _plain(value) for name, value in given.items() if name != "settings"},
            **settings,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> GlobalThrottle:
        """A new throttle of the same arguments."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": inner})

    def save_own_variables(self, store: Any) -> None:
        """The unit's state, as one array of bytes; the optimiser within saves its own."""
        if self.unit is None:
            return
        state = {"steps": self.log.steps, "counts": dict(self.log.counts), "unit": self.unit.throttle.state_dict()}
        store[STATE] = np.frombuffer(to_bytes(KIND, state), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Go on from a state of a throttle made alike.

        Raises:
            ValueError: another configuration, or no such state; names the field. Nothing has changed then.
        """
        if STATE not in store.keys():  # noqa: SIM118, for a store of Keras need not be a mapping
            if self.unit is None:
                return  # saved, as it is loaded, before the first step
            raise ValueError("the file must hold the state of a throttle, which the model that was saved did not have")
        self._check_built()
        state = of_bytes(np.asarray(store[STATE]).tobytes(), KIND, "the throttle's state")
        self.unit.load_state_dict(state["unit"])
        self.log = Log(state["steps"], dict(state["counts"]))

    def _check_built(self) -> None:
        if self.unit is None:
            raise ValueError("the throttle must know its variables first: call build(variables), or build the model")


# By which name a saved model finds it. No decorator, so that the site can be built without Keras.
keras.saving.register_keras_serializable(package="kappa_rtl")(GlobalThrottle)


@dataclass(frozen=True)
class _Given:
    """The arguments."""

    law: str
    formats: Any
    eta_max: float
    missing: str
    engine: str
    threads: int
    measure: int
    settings: Mapping[str, Any]


def _plain(value: Any) -> Any:
    """An argument as JSON has it: a format as text, a choice as its name."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Fixed):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return value.item() if isinstance(value, np.generic) else value


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
