"""A point of a search: the formats, rounding, motion and law of a unit, without its size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ....golden.config import ThrottleConfig
from ....golden.formats import Fixed

OFF = "off"
"""The law of a unit that does not throttle."""

NEAREST = "nearest"
FLOAT = "float"
"""The weights of a point that has no grid at all."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One choice of everything that a training depends on.

    Args:
        weight, gradient, update: formats, the update's without its rounding; ``float`` for the weight of a run without any grid.
        direction: the format of what an optimiser proposes, where that is no plain gradient; else empty.
        rounding: of the update: ``nearest``, ``stochastic:BITS`` or ``residual:BITS``.
        motion: ``applied``, ``intended`` or ``projection``.
        law: a published law, or ``off``.
        parameters: of the law, by name.
        on_still, delay: as in a configuration.
        mantissa_bits: M.
        scales: bits by which the grids of each tensor are finer than the formats, in the order of the weights; none where all of
            them are on one grid.
    """

    weight: str
    gradient: str = ""
    update: str = ""
    direction: str = ""
    rounding: str = NEAREST
    motion: str = "applied"
    law: str = "stability_margin"
    parameters: tuple[tuple[str, float], ...] = ()
    on_still: str = "release"
    delay: int = 0
    mantissa_bits: int = 24
    scales: tuple[int, ...] = ()

    @property
    def is_float(self) -> bool:
        return self.weight == FLOAT

    @property
    def id(self) -> str:
        """Twelve digits that tell it from all others."""
        text = json.dumps(self.to_table(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_table(self) -> dict[str, Any]:
        """What :meth:`of_table` reads."""
        table = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "scales"}
        return table | {"parameters": dict(self.parameters)} | ({"scales": list(self.scales)} if self.scales else {})

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Point:
        parameters = tuple(sorted((str(name), float(value)) for name, value in table["parameters"].items()))
        return cls(**dict(table) | {"parameters": parameters, "scales": tuple(map(int, table.get("scales", ())))})

    def fields(self, **others: Any) -> dict[str, Any]:
        """The fields of a configuration, ``law`` among them, that :meth:`ThrottleConfig.from_table` takes.

        Args:
            others: further ones, the same for all points: ``eta``, ``elements``, ``rho``, ``lanes``; and the ``segments`` that a
                subject makes of ``scales``, which a point does not know the sizes of.
        """
        made: dict[str, Any] = dict(others) | {"mantissa_bits": self.mantissa_bits, "on_still": self.on_still}
        if self.law == OFF:
            made |= {"law": "stability_margin", "enabled": False}
        else:
            made |= {"law": self.law} | dict(self.parameters)
        if self.is_float:
            return made | ({"source": "projection"} if self.motion == "projection" and self.law != OFF else {})
        made |= {"weight": self.weight, "gradient": self.gradient, "update": self.update}
        made |= {"direction": self.direction} if self.direction else {}
        made |= {"delay": self.delay} if self.delay else {}
        kind, _, bits = self.rounding.partition(":")
        if kind == "stochastic":
            made |= {"update": f"{self.update},stochastic", "random_bits": int(bits)}
        elif kind == "residual":
            made["residual_bits"] = int(bits)
        if self.law == OFF:
            return made | {"motion": "applied"}
        if self.law in ("clip_norm", "trust_ratio"):
            return made  # which look at no motion
        return made | ({"source": "projection"} if self.motion == "projection" else {"motion": self.motion})

    def config(self, **others: Any) -> ThrottleConfig:
        """The configuration of the unit; see :meth:`fields`.

        Raises:
            ValueError: the unit cannot be so.
        """
        return ThrottleConfig.from_table(self.fields(**others))

    def __str__(self) -> str:
        """``8 bits: weights SQ2.6, G SQ2.10, y SQ1.9, nearest, applied, stability_margin chi=1.5``."""
        law = " ".join([self.law, *(f"{name}={value:g}" for name, value in self.parameters)])
        if self.is_float:
            return f"float, {law}"
        rest = "" if self.on_still == "release" else f", {self.on_still}"
        rest += ", one pass" if self.delay else ""
        rest += "" if self.mantissa_bits == 24 else f", M {self.mantissa_bits}"
        direction = f", D {self.direction}" if self.direction else ""
        formats = f"weights {self.weight}, G {self.gradient}{direction}, y {self.update}"
        formats += f", tensors finer by {' '.join(map(str, self.scales))}" if self.scales else ""
        return f"{Fixed.parse(self.weight).width} bits: {formats}, {self.rounding}, {self.motion}, {law}{rest}"
