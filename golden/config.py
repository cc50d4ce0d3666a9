"""The one configuration from which the golden model, the RTL and the exported Verilog are all made."""

from __future__ import annotations

import dataclasses
import enum
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .formats import Fixed, Rounding, Scalar, ScalarFormat, shown

Real = int | float | str | Fraction
"""A real number as one writes it: a float means the decimal that it prints as, a string may be a ratio (``"3/2"``)."""

COUNTERS = (
    "gradient_saturated",
    "gradient_near_rail",
    "update_saturated",
    "update_underflow",
    "weight_saturated",
    "weight_near_rail",
    "still_steps",
)
FLAGS = ("learning_dead", "scalar_overflow", "scalar_underflow")
CONSTANTS = ("eta", "num", "bias", "gain", "rho", "keep", "eps", "alpha_min", "still_norm")

COUNTER_BITS = 32
"""Counters count modulo 2**32; a host that reads them in time takes differences modulo 2**32."""


class Source(enum.StrEnum):
    """Which curvature the law sees."""

    INSTANT = "instant"  #: C of this step
    EMA = "ema"  #: S, the moving average
    MAX = "max"  #: the larger of the two


class OnStill(enum.StrEnum):
    """What a step does after one that moved no weight (B = 0)."""

    FLOOR = "floor"  #: C = ||dG|| / still_norm; S keeps
    HOLD = "hold"  #: C and S keep
    DIVIDE = "divide"  #: the formula as published, C = ||dG|| / eps


class EmaStart(enum.StrEnum):
    """Where the moving average starts."""

    ZERO = "zero"  #: from 0, as published
    FIRST = "first"  #: from the first C


@dataclass(frozen=True)
class Interval:
    """A closed range of integers; the one place where widths come from."""

    low: int
    high: int

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def __contains__(self, other: Interval) -> bool:
        return self.low <= other.low and other.high <= self.high

    def __lshift__(self, bits: int) -> Interval:
        return Interval(self.low << bits, self.high << bits)

    def rounded_shift(self, bits: int) -> Interval:
        """What the range becomes on a grid coarser by ``bits``, whatever the rounding."""
        return Interval(self.low >> bits, -(-self.high >> bits)) if bits > 0 else self

    @property
    def magnitude(self) -> int:
        return max(abs(self.low), abs(self.high))

    @property
    def signed_bits(self) -> int:
        """Width of the two's complement word that holds the range."""
        return max(self.high.bit_length(), (-self.low - 1).bit_length() if self.low < 0 else 0) + 1

    @classmethod
    def word(cls, bits: int) -> Interval:
        """All values of a signed word: what may arrive on a port, rails or not."""
        return cls(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


@dataclass(frozen=True)
class Widths:
    """Every intermediate range, by interval arithmetic from the formats and the element count.

    ``gradient_energy`` and ``motion_energy`` are unsigned widths of A and B; the intervals are integers on the grid
    that their comment names.
    """

    difference: Interval  #: G - P, grid of the gradient
    motion: Interval  #: theta' - theta, grid of the weight
    gradient_energy: int  #: bits of A
    motion_energy: int  #: bits of B
    product: Interval  #: -D * step, grid 2**-(f_gradient + f_step)
    update_shift: int  #: bits from the product's grid down to the update's; negative: up
    rounded: Interval  #: the product on the update grid, before saturation
    common_fraction: int  #: fraction bits of the grid on which theta and y add
    sum: Interval  #: theta + y on that grid
    weight_shift: int  #: bits from that grid down to the weight's
    moved: Interval  #: the sum on the weight grid, before saturation

    @property
    def energy(self) -> int:
        """Bits that hold either energy."""
        return max(self.gradient_energy, self.motion_energy)


LIMITS: dict[str, tuple[int, int]] = {
    "elements": (1, 1 << 32),
    "lanes": (1, 32),
    "mantissa_bits": (4, 64),
    "exponent_bits": (6, 16),
    "step_bits": (2, 24),
    "dead_after": (1, (1 << 31) - 1),
}
MAX_FORMAT_WIDTH = 32
MAX_WORD = 62
"""Products and sums must fit a signed word of this many bits, so that int64 is exact."""


@dataclass(frozen=True, kw_only=True)
class ThrottleConfig:
    """Formats, law and size of one throttle unit; frozen and validated.

    The law is ``alpha = clamp(num / (bias + gain * x), alpha_min, 1)`` with x the curvature named by ``source``; the two
    published laws have constructors, :meth:`stability_margin` and :meth:`inverse_curvature`.

    Args:
        elements: N, how many weights the unit holds.
        lanes: L, how many elements enter per clock cycle, 1..32.
        gradient, weight, update: the signed fixed-point formats of G (and D), theta and y; text or :class:`Fixed`.
            The modes of ``update`` decide how ``-D*step`` is rounded, those of ``weight`` how ``theta + y`` is.
        mantissa_bits, exponent_bits: M and E of the scalars.
        step_bits: width of the step size that the lanes multiply by.
        eta: the learning rate.
        eta_max: the largest learning rate that the step format must hold; ``eta`` if not given.
        num, bias, gain, alpha_min, source: the law.
        rho: weight of the new curvature in the moving average, 0..1.
        eps: added to ||dtheta|| before the division.
        ema_start, on_still: see :class:`EmaStart`, :class:`OnStill`.
        enabled: whether alpha scales the step; if not it is only reported.
        dead_after: still steps in a row that raise ``learning_dead``.

    Raises:
        ValueError: with the field, its value and the rule that it breaks.

    >>> config = ThrottleConfig.stability_margin(elements=640, eta=0.1)
    >>> config.step.name, config.constants["num"]
    ('UQ-3.20', Scalar(m=15728640, e=-20))
    """

    elements: int
    eta: Real
    lanes: int = 1
    gradient: Fixed | str = "SQ4.12"
    weight: Fixed | str = "SQ2.14"
    update: Fixed | str = "SQ1.15"
    mantissa_bits: int = 24
    exponent_bits: int = 10
    step_bits: int = 17
    eta_max: Real | None = None
    num: Real = 1
    bias: Real = 1
    gain: Real = 1
    source: Source | str = Source.MAX
    alpha_min: Real = 0
    rho: Real = 0.05
    eps: Real = 1e-12
    ema_start: EmaStart | str = EmaStart.ZERO
    on_still: OnStill | str = OnStill.FLOOR
    enabled: bool = True
    dead_after: int = 100

    # ---------------------------------------------------------------- the published laws

    @classmethod
    def stability_margin(cls, *, eta: Real, chi: Real = 1.5, rho: Real = 0.05, eps: Real = 1e-12, **rest: Any) -> ThrottleConfig:
        """``alpha = min(1, chi / (eta * (max(C, S) + eps)))``: keep eta * curvature below chi."""
        rate = _positive("eta", eta)
        return cls(
            eta=eta, num=_real("chi", chi) / rate, bias=eps, gain=1, source=Source.MAX, alpha_min=0, rho=rho, eps=eps,
            **_no_law("stability_margin", rest),
        )  # fmt: skip

    @classmethod
    def inverse_curvature(
        cls, *, eta: Real, beta: Real = 1, alpha_min: Real = 0.01, rho: Real = 0.05, eps: Real = 1e-12, **rest: Any
    ) -> ThrottleConfig:
        """``alpha = clamp(1 / (1 + beta * S), alpha_min, 1)``: shrink with the smoothed curvature."""
        return cls(
            eta=eta, num=1, bias=1, gain=_real("beta", beta), source=Source.EMA, alpha_min=alpha_min, rho=rho, eps=eps,
            **_no_law("inverse_curvature", rest),
        )  # fmt: skip

    # ---------------------------------------------------------------- validation

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.enabled, bool):
            raise ValueError(f"enabled must be true or false, not {self.enabled!r}")
        for name in ("gradient", "weight", "update"):
            object.__setattr__(self, name, _format(name, getattr(self, name)))
        for name, kind in (("source", Source), ("ema_start", EmaStart), ("on_still", OnStill)):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, kind(value))
            except ValueError:
                names = ", ".join(member.value for member in kind)
                raise ValueError(f"{name} must be one of {names}, not {value!r}") from None
        if self.eta_max is None:
            object.__setattr__(self, "eta_max", self.eta)
        for name in ("eta", "eta_max", "num", "bias", "gain", "alpha_min", "rho", "eps"):
            object.__setattr__(self, name, _real(name, getattr(self, name)))
        if self.eta == 0:
            raise ValueError("eta must be greater than 0, not 0")
        for name in ("rho", "alpha_min"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be between 0 and 1, not {shown(_fraction(getattr(self, name)))}")
        if _fraction(self.eta_max) < _fraction(self.eta):
            raise ValueError(f"eta_max must be at least eta = {shown(_fraction(self.eta))}, not {shown(_fraction(self.eta_max))}")
        self.constants  # noqa: B018  each refuses what is not a scalar
        self._check_widths()

    def _check_widths(self) -> None:
        widths = self.widths
        for name, interval in (("update", widths.product), ("update", widths.rounded), ("weight", widths.sum)):
            if interval.signed_bits > MAX_WORD:
                raise ValueError(
                    f"{name} = {getattr(self, name)} needs an intermediate of {interval.signed_bits} bits; "
                    f"the bound is {MAX_WORD} (gradient {self.grids.gradient.name}, step {self.step.name})"
                )
        if abs(widths.update_shift) > MAX_WORD or widths.weight_shift > MAX_WORD:
            raise ValueError(
                f"update = {self.update} lies {widths.update_shift} bits from the product's grid; the bound is {MAX_WORD}"
            )
        low, high = self.scalar.exponents
        for name, fmt, bits in (
            ("gradient", self.grids.gradient, widths.gradient_energy),
            ("weight", self.grids.weight, widths.motion_energy),
        ):
            least, most = -fmt.fraction_bits - self.mantissa_bits, (bits + 1) // 2 - fmt.fraction_bits - self.mantissa_bits + 1
            if not (low <= least and most <= high):
                raise ValueError(
                    f"{name} = {fmt} gives norms with exponents {least}..{most}; "
                    f"exponent_bits = {self.exponent_bits} holds {low}..{high}"
                )

    # ---------------------------------------------------------------- derived

    @cached_property
    def grids(self) -> Grids:
        """The formats, typed: gradient, weight, update and step."""
        assert isinstance(self.gradient, Fixed) and isinstance(self.weight, Fixed) and isinstance(self.update, Fixed)
        return Grids(self.gradient, self.weight, self.update, self.step)

    @cached_property
    def step(self) -> Fixed:
        """The step size's format, ``UQ(i, step_bits - i)`` with ``i = floor(log2(eta_max)) + 1``."""
        eta = _fraction(self.eta_max)
        i = eta.numerator.bit_length() - eta.denominator.bit_length()
        i += eta >= Fraction(2) ** i
        return Fixed(False, i, self.step_bits - i)

    @property
    def step_error(self) -> Fraction:
        """Bound of what the step's own rounding can do to an update, in ulps of the update grid."""
        rail = max(abs(r) for r in self.grids.gradient.rails) * self.grids.gradient.ulp
        return rail * self.step.ulp / 2 / self.grids.update.ulp

    @property
    def scalar(self) -> ScalarFormat:
        return ScalarFormat(self.mantissa_bits, self.exponent_bits)

    @property
    def beats(self) -> int:
        """Stream beats a pass takes, ceil(N / L)."""
        return -(-self.elements // self.lanes)

    @property
    def tail(self) -> int:
        """Elements in the last beat, 1..L."""
        return self.elements - (self.beats - 1) * self.lanes

    @cached_property
    def constants(self) -> dict[str, Scalar]:
        """What the host writes into the unit: each the scalar nearest to the real value."""
        # eps before bias: in the stability margin they are one number, and an error names the one that was given.
        reals = {name: _fraction(getattr(self, name)) for name in ("eta", "num", "gain", "rho", "eps", "bias", "alpha_min")}
        reals["keep"] = 1 - reals["rho"]
        made = {name: self.scalar.constant(value, name=name) for name, value in reals.items()}
        half_ulp = self.grids.weight.ulp / 2
        made["still_norm"] = self.scalar.constant(
            half_ulp**2 * self.elements, name="weight: half an ulp times sqrt(N)", root=True
        )
        return {name: made[name] for name in CONSTANTS}

    @cached_property
    def widths(self) -> Widths:
        """Every intermediate range of the datapath."""
        g, w, y, step = self.grids
        gradient, weight = Interval.word(g.width), Interval.word(w.width)
        update = Interval(*y.rails)
        difference, motion = gradient - gradient, weight - weight
        product = gradient * Interval(-step.rails[1], 0)
        update_shift = g.fraction_bits + step.fraction_bits - y.fraction_bits
        rounded = product.rounded_shift(update_shift) if update_shift > 0 else product << -update_shift
        common = max(w.fraction_bits, y.fraction_bits)
        total = (weight << common - w.fraction_bits) + (update << common - y.fraction_bits)
        return Widths(
            difference=difference,
            motion=motion,
            gradient_energy=(self.elements * difference.magnitude**2).bit_length(),
            motion_energy=(self.elements * motion.magnitude**2).bit_length(),
            product=product,
            update_shift=update_shift,
            rounded=rounded,
            common_fraction=common,
            sum=total,
            weight_shift=common - w.fraction_bits,
            moved=total.rounded_shift(common - w.fraction_bits),
        )

    # ---------------------------------------------------------------- text

    def replace(self, **changes: Any) -> ThrottleConfig:
        """A copy with some fields changed, validated anew."""
        return dataclasses.replace(self, **changes)

    def to_table(self) -> dict[str, Any]:
        """The configuration as a TOML table; :meth:`from_table` reads it back to an equal object.

        A configuration that is one of the published laws is written as that law.
        """
        table: dict[str, Any] = {}
        skip: set[str] = set()
        one, eta = Fraction(1), _fraction(self.eta)
        if self.gain == one and self.source is Source.MAX and self.bias == self.eps and self.alpha_min == 0:
            table |= {"law": "stability_margin", "chi": _written(_fraction(self.num) * eta)}
            skip = {"num", "bias", "gain", "source", "alpha_min"}
        elif self.num == one and self.bias == one and self.source is Source.EMA:
            table |= {"law": "inverse_curvature", "beta": _written(_fraction(self.gain))}
            skip = {"num", "bias", "gain", "source"}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in skip:
                table[field.name] = (
                    _written(value) if isinstance(value, Fraction) else str(value) if isinstance(value, (Fixed, str)) else value
                )
        return table

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> ThrottleConfig:
        """A configuration from a TOML table; ``law`` may name a published law, with that law's own parameters."""
        values = dict(table)
        law = values.pop("law", None)
        makers = {"stability_margin": cls.stability_margin, "inverse_curvature": cls.inverse_curvature}
        if law is not None and (not isinstance(law, str) or law not in makers):
            raise ValueError(f"law must be one of {', '.join(makers)}, not {law!r}")
        known = {field.name for field in dataclasses.fields(cls)} | {
            "stability_margin": {"chi"},
            "inverse_curvature": {"beta"},
        }.get(law or "", set())
        for name in values:
            if name not in known:
                raise ValueError(f"{name} is no field of a throttle configuration; it has {', '.join(sorted(known))}")
        for name in ("elements", "eta"):
            if name not in values:
                raise ValueError(f"{name} must be given")
        return makers[law](**values) if law else cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> ThrottleConfig:
        """Read the table ``[throttle]`` of a TOML file."""
        try:
            document = tomllib.loads(Path(path).read_text())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: must be a TOML file: {error}") from None
        if not isinstance(document.get("throttle"), dict):
            raise ValueError(f"{path}: a table [throttle] must be there; found {', '.join(document) or 'nothing'}")
        return cls.from_table(document["throttle"])

    def registers(self) -> dict[str, Any]:
        """The configuration as integers, enough to recompute a run: formats, constants, modes, thresholds."""
        grids = self.grids._asdict()
        return {
            "elements": self.elements,
            "lanes": self.lanes,
            "formats": {name: [fmt.integer_bits, fmt.fraction_bits] for name, fmt in grids.items()},
            "rounding": {name: fmt.rounding.value for name, fmt in grids.items()},
            "overflow": {name: fmt.overflow.value for name, fmt in grids.items()},
            "near_rail": {name: grids[name].near_rail for name in ("gradient", "weight")},
            "mantissa_bits": self.mantissa_bits,
            "exponent_bits": self.exponent_bits,
            "source": str(self.source),
            "on_still": str(self.on_still),
            "ema_start": str(self.ema_start),
            "enabled": self.enabled,
            "dead_after": self.dead_after,
            "counter_bits": COUNTER_BITS,
            "constants": {name: list(value) for name, value in self.constants.items()},
        }


class Grids(NamedTuple):
    """The four fixed-point formats of a unit."""

    gradient: Fixed
    weight: Fixed
    update: Fixed
    step: Fixed


def _format(name: str, value: Fixed | str) -> Fixed:
    try:
        fmt = Fixed.parse(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isinstance(fmt, Fixed):
        raise ValueError(f"{name} must be a format such as 'SQ4.12', not {value!r}")
    if not fmt.signed:
        raise ValueError(f"{name} must be a signed format, not {fmt}")
    if fmt.width > MAX_FORMAT_WIDTH:
        raise ValueError(f"{name} must be at most {MAX_FORMAT_WIDTH} bits wide, not {fmt.width} ({fmt})")
    if fmt.rounding is Rounding.STOCHASTIC:
        raise ValueError(f"{name}: rounding must be a deterministic mode, not {fmt.rounding.value!r}")
    return fmt


def _fraction(value: Real | None) -> Fraction:
    assert isinstance(value, Fraction)
    return value


def _real(name: str, value: Real) -> Fraction:
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        number = Fraction(repr(float(value)) if isinstance(value, float) else value)
    except (ValueError, TypeError, ZeroDivisionError):
        raise ValueError(f"{name} must be a finite number, not {value!r}") from None
    if number < 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return number


def _positive(name: str, value: Real) -> Fraction:
    number = _real(name, value)
    if number == 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return number


def _no_law(law: str, rest: dict[str, Any]) -> dict[str, Any]:
    for name in ("num", "bias", "gain", "source", "alpha_min"):
        if name in rest:
            raise ValueError(f"{name} is set by the law {law} and must not be given with it, not {rest[name]!r}")
    return rest


def _written(value: Fraction) -> int | float | str:
    """The plainest TOML value that reads back as the same number."""
    if value.denominator == 1 and abs(value) < 1 << 53:
        return int(value)
    try:
        decimal = float(value)
    except OverflowError:
        return str(value)
    return decimal if Fraction(repr(decimal)) == value else str(value)
