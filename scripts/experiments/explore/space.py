"""A space of points: for each of what a unit may be made with, the values that are tried."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ....golden.config import ThrottleConfig
from ....golden.formats import Fixed
from ....golden.laws import LAWS
from ....golden.modes import OnStill
from ....golden.numbers import is_number
from .point import FLOAT, NEAREST, OFF, Point

AUTO = "auto"
STILL = tuple(member.value for member in OnStill)
RELEASE = OnStill.RELEASE.value
ONE, TENSOR = "one", "tensor"
MOTIONS = ("applied", "intended", "projection")
RANDOM_BITS, MOST_RANDOM, KEPT = 16, 16, (2, 8)
WIDTHS = (2, 32)
GRADIENT_BITS = 12
"""Of a gradient beside narrower weights, where none is asked for."""

GUARD_BITS = 3
"""Of an update that is rounded to nearest, beyond the grid of the weights; at random or with a residual it has none."""


class Integers(NamedTuple):
    """Bits before the binary point, the sign among them, of formats that are given by their width.

    A direction, where there is one beside the gradient, is as wide as that. With ``scales``, the bits by which each tensor's
    grids are finer, they are those of a tensor that is finer by none.
    """

    weight: int
    gradient: int
    update: int
    direction: int | None = None
    scales: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The table ``[explore]``: a value, a list of them, or of integers ``{from = 4, to = 16, step = 2}``, for each key.

    Args:
        weight: widths in bits, whose binary point is found in a run in float, or formats.
        gradient: the same; ``auto`` is 12 bits, or as many as the weights have if that is more.
        update: the same; ``auto`` has three bits more behind the point than the weights where it is rounded to nearest.
        rounding: of the update: ``nearest``, ``stochastic`` or ``stochastic:BITS``, ``residual:BITS``.
        motion: ``applied``, ``intended``, ``projection``; ``auto`` is intended where the update is rounded at random or keeps a
            residual.
        law: names of published laws, or ``off``; with parameters as ``{law = "stability_margin", chi = [1.0, 1.5]}``.
        on_still: what the unit does after a step that moved no weight: ``release``, ``floor``, ``hold``, ``divide``.
        delay: 1 for the step size of the step before, which takes one pass and not two.
        mantissa_bits: M, of the scalars.
        grids: ``one`` binary point for all weights, or one for each ``tensor``, from the run in float too: segments of one unit,
            whose motion is intended unless it is given.
        lanes: L; trained once for all of them.
        target: what the cost is estimated for: ``ecp5``, or another one with the clock that is assumed: ``xilinx@200``, in MHz.

    Raises:
        ValueError: with the key, the value and the rule.
    """

    weight: tuple[int | str, ...] = (4, 6, 8, 10, 12, 16)
    gradient: tuple[int | str, ...] = (AUTO,)
    update: tuple[int | str, ...] = (AUTO,)
    rounding: tuple[str, ...] = (NEAREST, "stochastic", "residual:4")
    motion: tuple[str, ...] = (AUTO,)
    law: tuple[Any, ...] = (OFF, "stability_margin")
    on_still: tuple[str, ...] = ("release",)
    delay: tuple[int, ...] = (0,)
    mantissa_bits: tuple[int, ...] = (24,)
    grids: tuple[str, ...] = (ONE,)
    lanes: tuple[int, ...] = (1, 8)
    target: tuple[str, ...] = ("ecp5",)

    def __post_init__(self) -> None:
        for one in fields(self):
            values = _several(one.name, getattr(self, one.name))
            checked = [CHECKS[one.name](f"explore.{one.name}", value) for value in values]
            once = dict.fromkeys(itertools.chain.from_iterable(checked) if one.name == "law" else checked)
            object.__setattr__(self, one.name, tuple(once))

    @property
    def size(self) -> int:
        """How many points there are, those among them that say the same too."""
        return math.prod(len(getattr(self, name)) for name in TRAINED)

    def choices(self) -> Iterator[dict[str, Any]]:
        """Every combination of what a training depends on."""
        for values in itertools.product(*(getattr(self, name) for name in TRAINED)):
            yield dict(zip(TRAINED, values, strict=True))


TRAINED = ("weight", "gradient", "update", "rounding", "motion", "law", "on_still", "delay", "mantissa_bits", "grids")
"""The axes that a training depends on; the others are crossed with its result."""


def point_of(choice: Mapping[str, Any], integers: Integers) -> Point:
    """The point of a combination, as it is told from others: what has no effect is as by default.

    Args:
        integers: those of the combination's ``grids``.

    Raises:
        ValueError: no unit can be so.
    """
    rounding = choice["rounding"]
    scales = integers.scales if any(integers.scales) else ()
    if scales and choice["delay"]:
        raise ValueError("grids must be one with delay = 1, whose unit has no table of segments, not tensor")
    weight = _format(choice["weight"], integers.weight)
    gradient, update = choice["gradient"], choice["update"]
    if gradient == AUTO:
        gradient = max(GRADIENT_BITS, weight.width)
    if update == AUTO:
        places = weight.fraction_bits + (GUARD_BITS if rounding == NEAREST else 0)
        update = str(Fixed(True, max(integers.update, 2 - places), places))
    law, parameters = choice["law"]
    motion = choice["motion"]
    if motion == AUTO:
        motion = "applied" if rounding == NEAREST and not scales else "intended"
    if law in (OFF, "clip_norm", "trust_ratio"):
        motion = "applied"
    grid = _format(gradient, integers.gradient)
    return Point(
        weight=str(weight),
        gradient=str(grid),
        direction="" if integers.direction is None else str(_format(grid.width, integers.direction)),
        update=str(_format(update, integers.update)),
        rounding=rounding,
        motion=motion,
        law=law,
        parameters=parameters,
        on_still=RELEASE if law in (OFF, "clip_norm", "trust_ratio") else choice["on_still"],
        delay=choice["delay"],
        mantissa_bits=choice["mantissa_bits"],
        scales=scales,
    )


def floats(axes: Axes) -> list[Point]:
    """The same laws without any grid: what the points are held against."""
    return [Point(weight=FLOAT, law=law, parameters=parameters) for law, parameters in dict.fromkeys(axes.law)]


def finer(integers: Integers) -> str:
    """The scales of the tensors, in words."""
    return f"a grid a tensor is finer by {', '.join(map(str, integers.scales))} bits, in the order of the weights"


def _format(given: int | str, integer_bits: int) -> Fixed:
    return Fixed(True, integer_bits, given - integer_bits) if isinstance(given, int) else Fixed.parse(given)


# -------------------------------------------------------------------------------------------------- what a key may say


def _several(name: str, given: Any) -> Sequence[Any]:
    if isinstance(given, Mapping) and "from" in given:
        if set(given) - {"from", "to", "step"} or "to" not in given:
            raise ValueError(f"explore.{name} must be a range {{from = .., to = .., step = ..}}, not {given!r}")
        start, stop, step = given["from"], given["to"], given.get("step", 1)
        if not all(_is_integer(value) for value in (start, stop, step)) or step < 1 or stop < start:
            raise ValueError(f"explore.{name} must be a range of integers from less to more, not {given!r}")
        return range(start, stop + 1, step)
    values = given if isinstance(given, (list, tuple)) else (given,)
    if not values:
        raise ValueError(f"explore.{name} must not be empty")
    return values


def _width(name: str, given: Any, *, auto: bool) -> int | str:
    if _is_integer(given) and WIDTHS[0] <= given <= WIDTHS[1]:
        return int(given)
    if auto and given == AUTO:
        return AUTO
    if isinstance(given, str):
        try:
            made = Fixed.parse(given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if made.signed and made.width <= WIDTHS[1]:
            if name == "explore.update" and str(made) != made.name:
                raise ValueError(f"{name} must be a format without modes, which explore.rounding says, not {given!r}")
            return str(made)
    rule = f"a width from {WIDTHS[0]} to {WIDTHS[1]} or a signed format of as many bits{' or auto' if auto else ''}"
    raise ValueError(f"{name} must be {rule}, not {given!r}")


def _rounding(name: str, given: Any) -> str:
    kind, _, bits = given.partition(":") if isinstance(given, str) else ("", "", "")
    number = int(bits) if bits.isdecimal() else None
    if given == NEAREST:
        return NEAREST
    if given == "stochastic":
        return f"stochastic:{RANDOM_BITS}"
    if kind == "stochastic" and number is not None and 1 <= number <= MOST_RANDOM:
        return f"stochastic:{number}"
    if kind == "residual" and number is not None and KEPT[0] <= number <= KEPT[1]:
        return f"residual:{number}"
    raise ValueError(f"{name} must be nearest, stochastic[:1..{MOST_RANDOM}] or residual:{KEPT[0]}..{KEPT[1]}, not {given!r}")


def _motion(name: str, given: Any) -> str:
    if given not in (AUTO, *MOTIONS):
        raise ValueError(f"{name} must be one of {', '.join((AUTO, *MOTIONS))}, not {given!r}")
    return str(given)


def _grids(name: str, given: Any) -> str:
    if given not in (ONE, TENSOR):
        raise ValueError(f"{name} must be one of {ONE}, {TENSOR}, not {given!r}")
    return str(given)


def _law(name: str, given: Any) -> list[tuple[str, tuple[tuple[str, float], ...]]]:
    table = {"law": given} if isinstance(given, str) else given
    if isinstance(given, tuple):  # as it is kept
        return [given]
    if not isinstance(table, Mapping) or table.get("law") not in (OFF, *LAWS):
        raise ValueError(f"{name} must be one of {', '.join((OFF, *LAWS))}, or a table with such a law, not {given!r}")
    law = table["law"]
    known = () if law == OFF else tuple(LAWS[law].parameters)
    lists = {}
    for key, value in table.items():
        if key == "law":
            continue
        if key not in known:
            raise ValueError(f"{name}: parameters of {law} must be among {', '.join(known) or 'none'}, not {key!r}")
        lists[key] = value if isinstance(value, (list, tuple)) else (value,)
        if not lists[key]:
            raise ValueError(f"{name}: {key} must not be empty")
        for one in lists[key]:
            if not is_number(one) or not math.isfinite(one):
                raise ValueError(f"{name}: {key} must be numbers, not {one!r}")
    every = list(itertools.product(*lists.values()))
    for values in every if law != OFF else ():
        try:
            ThrottleConfig.of_law(law, elements=1, eta=1, **dict(zip(lists, values, strict=True)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return [(law, tuple(sorted((key, float(one)) for key, one in zip(lists, values, strict=True)))) for values in every]


def _on_still(name: str, given: Any) -> str:
    if given not in STILL:
        raise ValueError(f"{name} must be one of {', '.join(STILL)}, not {given!r}")
    return str(given)


def _count(name: str, given: Any, low: int, high: int) -> int:
    if not _is_integer(given) or not low <= given <= high:
        raise ValueError(f"{name} must be integers from {low} to {high}, not {given!r}")
    return int(given)


def _target(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{name} must be names of targets, not {given!r}")
    from ....hw.synth.estimate import aimed  # here: Amaranth takes half a second, and every command reads settings

    try:
        aimed(given)
    except ValueError as error:
        raise ValueError(f"explore.{error}") from None
    return given


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


CHECKS: dict[str, Any] = {
    "weight": lambda name, given: _width(name, given, auto=False),
    "gradient": lambda name, given: _width(name, given, auto=True),
    "update": lambda name, given: _width(name, given, auto=True),
    "rounding": _rounding,
    "motion": _motion,
    "law": _law,
    "on_still": _on_still,
    "delay": lambda name, given: _count(name, given, 0, 1),
    "mantissa_bits": lambda name, given: _count(name, given, 4, 64),
    "grids": _grids,
    "lanes": lambda name, given: _count(name, given, 1, 32),
    "target": _target,
}
