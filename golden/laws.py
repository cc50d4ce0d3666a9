"""The published laws: each a choice of the constants of ``alpha = clamp(num / (bias + gain * x), alpha_min, 1)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .numbers import Real, real


def written(value: Fraction) -> int | float | str:
    """The plainest TOML value that reads back as the same number."""
    if value.denominator == 1 and abs(value) < 1 << 53:
        return int(value)
    try:
        decimal = float(value)
    except OverflowError:
        return str(value)
    return decimal if Fraction(repr(decimal)) == value else str(value)


@dataclass(frozen=True)
class Law:
    """A law by name: its parameters with their defaults, and what it makes of them.

    ``make`` gives the fields that the law sets, from the parameters, eta and eps; ``parameters_of`` reads the parameters back.
    """

    name: str
    parameters: Mapping[str, Real]
    make: Callable[[Mapping[str, Fraction]], dict[str, Any]]
    parameters_of: Callable[[Mapping[str, Any]], dict[str, Fraction]]

    @property
    def sets(self) -> tuple[str, ...]:
        """The fields that the law sets."""
        return tuple(self.make(dict.fromkeys((*self.parameters, "eta", "eps"), Fraction(1))))

    def fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration's fields, from the law's parameters and other fields.

        Raises:
            ValueError: a field is given that the law sets, or a parameter is no number.
        """
        rest = {name: value for name, value in given.items() if name not in self.parameters}
        projects = str(rest.get("source")) == PROJECTION and self.name in PROJECTED
        if projects:
            del rest["source"]
        for name in self.sets:
            if name in rest:
                raise ValueError(f"{name} is set by the law {self.name} and must not be given with it, not {rest[name]!r}")
        eta = real("eta", given.get("eta", 1))
        if eta == 0:
            raise ValueError(f"eta must be greater than 0, not {given['eta']!r}")
        values = {name: real(name, given.get(name, default)) for name, default in self.parameters.items()}
        made = self.make(values | {"eta": eta, "eps": real("eps", given.get("eps", EPS))})
        return rest | made | ({"source": PROJECTED[self.name]} if projects else {})


PROJECTION = "projection"
"""The source that a law may be given: its C is then the projection of dG onto the step."""

PROJECTED = {
    "stability_margin": PROJECTION,
    "inverse_curvature": f"{PROJECTION}_ema",
    "adgd": f"{PROJECTION}_instant",
}
"""The laws of a curvature, and the source of each that sees C and S as it does, with C by projection."""

EPS = "1e-12"
"""What the configuration adds to ||dtheta|| if nothing else is given."""

ONE, ZERO = Fraction(1), Fraction(0)


def _over(value: Fraction, eta: Fraction) -> Fraction | None:
    """A quotient by the learning rate; None at a rate of 0, which a unit may have for a while but no configuration."""
    return value / eta if eta else None


def _law(
    source: str, *, num: Fraction | None = ONE, bias: Fraction = ZERO, gain: Fraction = ONE, growth: bool = False, **rest: Any
) -> dict[str, Any]:
    return {"num": num, "bias": bias, "gain": gain, "source": source, "growth": growth, **rest}


LAWS = {
    law.name: law
    for law in (
        Law(
            "stability_margin",
            {"chi": "1.5"},
            lambda p: _law("max", num=_over(p["chi"], p["eta"]), bias=p["eps"], alpha_min=ZERO),
            lambda f: {"chi": f["num"] * f["eta"]},
        ),
        Law(
            "inverse_curvature",
            {"beta": 1, "alpha_min": "0.01"},
            lambda p: _law("ema", bias=ONE, gain=p["beta"], alpha_min=p["alpha_min"]),
            lambda f: {"beta": f["gain"], "alpha_min": f["alpha_min"]},
        ),
        Law(
            "adgd",
            {},
            lambda p: _law("instant", gain=2 * p["eta"], growth=True),
            lambda f: {},
        ),
        Law(
            "clip_norm",
            {"max_norm": 1},
            lambda p: _law("norm", num=p["max_norm"]),
            lambda f: {"max_norm": f["num"]},
        ),
        Law(
            "trust_ratio",
            {"trust": "0.001", "weight_decay": 0},
            lambda p: _law("ratio", num=_over(p["trust"], p["eta"]), bias=p["weight_decay"]),
            lambda f: {"trust": f["num"] * f["eta"], "weight_decay": f["bias"]},
        ),
    )
}
"""Every law by its name."""


RATED = ("eta", "eps", "num", "bias", "gain", "source", "growth", "alpha_min")
"""The fields of a configuration that a law may set, or is made of."""


def at_rate(fields: Mapping[str, Any], eta: Fraction) -> dict[str, Fraction | None]:
    """The constants of these fields' law that depend on the learning rate, at another one; None for a quotient by zero.

    A configuration that is none of the laws keeps its constants.
    """
    law = recognise(fields)
    if law is None:
        return {}
    name, parameters = law
    made = LAWS[name].make(parameters | {"eta": eta, "eps": fields["eps"]})
    return {key: made[key] for key in ("num", "gain")}


def recognise(fields: Mapping[str, Any]) -> tuple[str, dict[str, Fraction]] | None:
    """The law that a configuration's fields are, with its parameters; None if they are none."""
    for law in LAWS.values():
        parameters = law.parameters_of(fields)
        made = law.make(parameters | {"eta": fields["eta"], "eps": fields["eps"]})
        if fields["source"] == PROJECTED.get(law.name):
            made["source"] = fields["source"]
        if all(fields[name] == value for name, value in made.items()):
            return law.name, parameters
    return None
