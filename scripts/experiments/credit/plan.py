"""The sizes of a credit experiment: what may be changed of it, from the command line or a file, and the published ones."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ....golden.credit.activations import activation
from ....golden.credit.methods import METHODS
from ....golden.numbers import is_number, whole
from .throttling import LAWS

PUBLISHED_SEEDS = (42, 123, 456)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sizes of an experiment.

    Args:
        seeds: one run of every arm each.
        width: of the states.
        depths: numbers of blocks, each a group of arms of its own.
        activations: of the students, each a group too; ``gelu``, ``tanh``, ``relu``, ``phi:ALPHA``.
        matrices: 1 or 2, of a block.
        classes: outputs of the linear-quadratic system.
        sigma: its noise.
        steps: of training.
        epochs: of the data, in the place of steps if not 0.
        batch: samples of a step.
        samples: of the ladder's data to train on.
        rate: Adam's, of the students; the throttle's eta.
        warmups: the share of the steps that feedback alignment begins with; a scan has several.
        terminals: weights of the credit bridge's gradient at L; a scan has several.
        hidden: widths of the estimators' hidden layers.
        rows: pairs of sample and layer that an estimator learns from in a step.
        single: students and estimators in float32; they are measured in float64.
        cifar: a folder with CIFAR-10, in place of digits.
        methods: whose updates go through the throttle.
        bits: of its tensors; 0 is float64.
        laws: of its unit.
    """

    seeds: tuple[int, ...] = PUBLISHED_SEEDS
    width: int = 32
    depths: tuple[int, ...] = (4,)
    activations: tuple[str, ...] = ("phi:1",)
    matrices: int = 2
    classes: int = 4
    sigma: float = 0.03
    steps: int = 1500
    epochs: int = 0
    batch: int = 128
    samples: int = 4096
    rate: float = 1e-3
    warmups: tuple[float, ...] = (0.2,)
    terminals: tuple[float, ...] = (1.0,)
    hidden: tuple[int, ...] = (64, 64)
    rows: int = 128
    single: bool = False
    cifar: str = ""
    methods: tuple[str, ...] = tuple(METHODS)
    bits: tuple[int, ...] = (0, 16, 12, 8)
    laws: tuple[str, ...] = LAWS

    def __post_init__(self) -> None:
        for name in ("width", "classes", "batch", "samples", "rows", "steps"):
            whole(name, getattr(self, name), 1)
        whole("epochs", self.epochs, 0)
        whole("matrices", self.matrices, 1, 2)
        for name in (*LISTS, "hidden"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                raise ValueError(f"{name} must be a list, not {value!r}")
            if any(isinstance(one, (list, tuple, dict)) for one in value):
                raise ValueError(f"{name} must be a list of plain values, not {list(value)!r}")
            if name == "hidden":
                continue
            if not value:
                raise ValueError(f"{name} must have at least one value, not none")
            if len(set(value)) < len(value):
                raise ValueError(f"{name} must not have a value twice, not {', '.join(map(str, value))}")
        for name, low in (("seeds", 0), ("depths", 1), ("hidden", 1)):
            for value in getattr(self, name):
                whole(name, value, low)
        for kind in self.activations:
            try:
                activation(kind)
            except ValueError as error:
                raise ValueError(f"activations: {error}") from None
        plain = tuple(f"phi:{float(kind[4:]):.15g}" if kind.startswith("phi:") else kind for kind in self.activations)
        object.__setattr__(self, "activations", plain)
        for name, known in (("methods", tuple(METHODS)), ("laws", LAWS)):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name} must be of {', '.join(known)}, not {value!r}")
        for value in self.bits:
            whole("bits", value, 0, 24)
            if 0 < value < 6:
                raise ValueError(f"bits must be 0 for float or from 6 to 24, not {value!r}")
        if not isinstance(self.cifar, str):
            raise ValueError(f"cifar must be the name of a folder, not {self.cifar!r}")
        for name, top in (("warmups", 1.0), ("terminals", math.inf)):
            for value in getattr(self, name):
                if not is_number(value) or not 0 <= value <= top or not math.isfinite(value):
                    bound = " and at most 1" if math.isfinite(top) else ", finite"
                    raise ValueError(f"{name} must be at least 0{bound}, not {value!r}")
        if not is_number(self.sigma) or not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma must be at least 0, finite, not {self.sigma!r}")
        if not is_number(self.rate) or not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be greater than 0, finite, not {self.rate!r}")
        if not isinstance(self.single, bool):
            raise ValueError(f"single must be true or false, not {self.single!r}")

    @property
    def estimator(self) -> dict[str, Any]:
        """The options of every method that learns."""
        return {"hidden": self.hidden, "rows": self.rows, **({"single": True} if self.single else {})}

    def one(self, name: str) -> Any:
        """The only value of a list that is no scan here.

        Raises:
            ValueError: there are several.
        """
        values = getattr(self, name)
        if len(values) > 1:
            raise ValueError(f"{name} must be one value here, not {', '.join(map(str, values))}")
        return values[0]

    def counted(self, samples: int) -> int:
        """The steps, of so many samples."""
        return self.epochs * -(-samples // self.batch) if self.epochs else self.steps

    @property
    def length(self) -> str:
        """How long it trains, in words."""
        return f"{self.epochs} epochs of batches of {self.batch}" if self.epochs else f"{self.steps} steps of {self.batch}"


LISTS = tuple(one.name for one in dataclasses.fields(Plan) if str(one.type).startswith("tuple") and one.name != "hidden")

COMMON = ("seeds", "width", "steps", "batch", "hidden", "rows", "single")
STUDENT = (*COMMON, "epochs", "rate", "depths", "activations", "matrices", "warmups", "terminals")
LADDER = (*STUDENT, "samples")
IMAGES = (*STUDENT, "cifar")
USES: dict[str, tuple[str, ...]] = {
    "lq": (*COMMON, "depths", "classes", "sigma", "terminals"),
    "ladder": LADDER,
    "audit": LADDER,
    "boundary": tuple(name for name in LADDER if name not in ("warmups", "terminals")),
    "forms": tuple(name for name in LADDER if name != "matrices"),
    "frozen": tuple(name for name in IMAGES if name != "warmups"),
    "online": IMAGES,
    "depth": IMAGES,
    "scan": IMAGES,
    "main": IMAGES,
    "throttle": (
        *("seeds", "width", "depths", "activations", "steps", "rate", "warmups", "terminals", "hidden", "rows"),
        *("methods", "bits", "laws"),
    ),
}
"""The sizes that each experiment has."""

WIDE: dict[str, Any] = {"hidden": (256, 256, 256), "rows": 128, "single": True}
"""The published nets, in float32, on 128 pairs of sample and layer a step."""

_IMAGE = {"activations": ("gelu",)}
SMALL: dict[str, dict[str, Any]] = {
    "lq": {"width": 16},
    "ladder": {"activations": ("phi:0", "phi:1"), "steps": 3000},
    "audit": {"steps": 3000},
    "boundary": {"steps": 3000, "seeds": (42,)},
    "forms": {"steps": 3000, "seeds": (42,)},
    "frozen": _IMAGE | {"steps": 1000},
    "online": _IMAGE | {"steps": 1000},
    "depth": _IMAGE | {"steps": 1000, "depths": (2, 4, 8)},
    "scan": _IMAGE | {"steps": 1000, "warmups": (0.0, 0.05, 0.2), "terminals": (1.0, 4.0)},
    "main": _IMAGE | {"steps": 1000, "depths": (12,)},
    "throttle": _IMAGE | {"steps": 200, "depths": (2,), "rate": 0.1, "seeds": (42,)},
}
"""Minutes."""

_RATE = 3e-4  # not published: of 1e-3, 3e-4 and 1e-4 the one that came closest at alpha 1, L 4 (`credit forms`)
_BIG = WIDE | {"width": 128, "epochs": 80, "rate": _RATE}
_BIG_IMAGE = WIDE | _IMAGE | {"width": 256, "epochs": 100, "rate": _RATE}
FULL: dict[str, dict[str, Any]] = {
    "lq": WIDE | {"width": 64, "depths": (12,), "classes": 10, "steps": 8000, "batch": 256},
    "ladder": _BIG | {"activations": ("phi:0", "phi:0.25", "phi:0.5", "phi:1"), "depths": (2, 4, 8, 12)},
    "audit": _BIG | {"depths": (4, 8)},
    "boundary": _BIG,
    "forms": _BIG,
    "frozen": _BIG_IMAGE,
    "online": _BIG_IMAGE,
    "depth": _BIG_IMAGE | {"width": 512, "depths": (2, 4, 6, 8, 12)},
    "scan": _BIG_IMAGE | {"warmups": (0.0, 0.05, 0.2), "terminals": (1.0, 4.0)},
    "main": _BIG_IMAGE | {"width": 512, "depths": (12,)},
    "throttle": SMALL["throttle"] | {"steps": 400, "seeds": PUBLISHED_SEEDS},
}
"""As published, where that is known: the ladder's samples, batch and rate are ours, and ``throttle`` is."""


def plan_of(name: str, *, full: bool = False, **changes: Any) -> Plan:
    """The plan of an experiment.

    Args:
        name: a key of :data:`USES`.
        full: start from the published sizes.
        changes: fields of :class:`Plan` in the place of its own; lists may be given as such.

    Raises:
        ValueError: the experiment has no such size, or a value is bad; names it.
    """
    for label in changes:
        if label not in USES[name]:
            users = [one for one, used in USES.items() if label in used]
            rule = f"it is for {', '.join(users)}" if users else f"sizes are {', '.join(USES[name])}"
            raise ValueError(f"{label} must not be given for {name}: {rule}")
    given = {label: tuple(value) if isinstance(value, list) else value for label, value in changes.items()}
    if given.get("steps") and given.get("epochs"):
        raise ValueError("steps and epochs must not both be given")
    if "steps" in given:
        given["epochs"] = 0
    return Plan(**(FULL if full else SMALL)[name] | given)


def used(name: str, plan: Plan) -> dict[str, Any]:
    """What an experiment uses of its plan, by name: as it is written and shown."""
    values = {label: getattr(plan, label) for label in USES[name]}
    if "epochs" in values:
        del values["steps" if plan.epochs else "epochs"]
    return values
