"""The one configuration from which the golden model, the RTL and the exported Verilog are all made.

In one file: the fields, the rules that they keep and all that follows from them are read beside each other.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from . import segments as layouts
from .formats import Fixed, Rounding, Scalar, ScalarFormat, shown
from .laws import LAWS, RATED, at_rate, recognise, written
from .modes import EmaStart as EmaStart
from .modes import Motion as Motion
from .modes import OnStill as OnStill
from .modes import Source as Source
from .numbers import Real, item, real, switch, whole
from .random import lane_seeds
from .registers import BLOCK_BITS, CONSTANTS, COUNTER_BITS, GROWTH_FRACTION, WATCHES, counters
from .segments import MOST_SCALE, Segment, Stretch
from .tables import html
from .widths import Grids, Widths, derive

LIMITS: dict[str, tuple[int, int]] = {
    "elements": (1, 1 << 32),
    "lanes": (1, 32),
    "mantissa_bits": (4, 64),
    "exponent_bits": (6, 16),
    "step_bits": (2, 24),
    "dead_after": (1, (1 << 31) - 1),
    "random_bits": (1, 16),
    "seed": (0, (1 << 32) - 1),
    "residual_bits": (0, 8),
    "delay": (0, 1),
    "entries": (0, 64),
    "scale_max": (0, MOST_SCALE),
}
MAX_FORMAT_WIDTH = 32
SHARED = ("gradient_grid", "weight_grid", "direction_grid")
"""The formats in which shards of different formats meet."""
MAX_WORD = 62
"""Products and sums must fit a signed word of this many bits, so that int64 is exact."""


@dataclass(frozen=True, kw_only=True)
class ThrottleConfig:
    """Formats, law and size of one throttle unit; frozen and validated.

    The law is ``alpha = clamp(num / (bias + gain * x), alpha_min, 1)`` with x what ``source`` names; each published law
    has a constructor: :meth:`stability_margin`, :meth:`inverse_curvature`, :meth:`adgd`, :meth:`clip_norm`, :meth:`trust_ratio`.

    Args:
        elements: N, how many weights the unit holds.
        lanes: L, how many elements enter per clock cycle, 1..32.
        gradient, weight, update: the signed fixed-point formats of G, theta and y; text or :class:`Fixed`.
            The modes of ``update`` decide how ``-D*step`` is rounded, those of ``weight`` how ``theta + y`` is.
        direction: the signed format of D, where an optimiser proposes it and it comes as a stream; that of G if not given.
        mantissa_bits, exponent_bits: M and E of the scalars.
        step_bits: width of the step size that the lanes multiply by.
        eta: the learning rate.
        eta_max: the largest learning rate that the step format must hold; ``eta`` if not given.
        num, bias, gain, alpha_min, source: the law.
        growth: whether alpha grows at most by sqrt(1 + alpha / the alpha before it) from one step to the next, as in AdGD.
        rho: weight of the new curvature in the moving average, 0..1.
        eps: added to ||dtheta|| before the division.
        motion: see :class:`Motion`; not given, ``applied``, or ``intended`` with the source ``projection``, and with one of
            curvature where the update rounds at random or a residual is kept. A file that a command has written has it always;
            ``replace`` takes one that equals the default as not given.
        ema_start, on_still: see :class:`EmaStart`, :class:`OnStill`.
        enabled: whether alpha scales the step; if not it is only reported.
        dead_after: still steps in a row that raise ``learning_dead``.
        random_bits, seed: of the random numbers, where the update's rounding is ``stochastic``.
        residual_bits: k, bits kept of what rounding dropped of an element, on the grid 2**-(f_weight + k); 0 or 2..8.
        every_rail: whether to count rails of the update and the step too, :data:`~kappa_rtl.golden.registers.RAIL_COUNTERS`.
        parity: whether memories on chip keep a parity bit for each lane of a word; a flag ``memory_fault`` tells of a wrong one.
        delay: 1 applies the step size of the step before, in the pass in which the gradient comes in.
        watchdog: what to watch, of :data:`~kappa_rtl.golden.registers.WATCHES`; none by default, and then no watchdog is built.
        gradient_floor: the norm of G below which the watchdog fires; greater than 0 if it looks for that.
        norm_growth: the growth from a block's norm to the next one's above which it fires.
        population: elements of all shards together, where this unit holds only some of them; makes it exchange energies.
        gradient_grid, weight_grid, direction_grid: of a shard beside shards of other formats: formats that hold the gradients,
            weights and directions of all of them, whose grids the energies are exchanged on;
            :func:`~kappa_rtl.golden.together.together` finds them. The default motion is then ``intended``.
        segments: stretches of the elements with binary points of their own, see :mod:`~kappa_rtl.golden.segments`: a list of
            :class:`~kappa_rtl.golden.segments.Segment`, in a file tables ``[[throttle.segments]]`` with ``name``, ``elements``
            and ``scale``, whose elements are ``elements`` together; or a number, the entries, for one segment of all.
        entries: how many segments the hardware's table holds, as many as there are if not given; 0 is a unit without segments.
        scale_max: the largest scale that a segment may have; A and B are on grids finer by so many bits.
        capacity: elements that the hardware has room for, as many as there are if not given. Any layout that fits entries,
            scale_max and capacity runs on it.

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
    direction: Fixed | str | None = None
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
    motion: Motion | str | None = None
    ema_start: EmaStart | str = EmaStart.ZERO
    on_still: OnStill | str = OnStill.RELEASE
    enabled: bool = True
    dead_after: int = 100
    growth: bool = False
    random_bits: int = 16
    seed: int = 1
    residual_bits: int = 0
    every_rail: bool = False
    parity: bool = False
    delay: int = 0
    watchdog: tuple[str, ...] = ()
    gradient_floor: Real = 0
    norm_growth: Real = 50
    population: int | None = None
    gradient_grid: Fixed | str | None = None
    weight_grid: Fixed | str | None = None
    direction_grid: Fixed | str | None = None
    segments: tuple[Segment, ...] = ()
    entries: int = 0
    scale_max: int = MOST_SCALE
    capacity: int | None = None

    # ---------------------------------------------------------------- the published laws

    @classmethod
    def stability_margin(cls, *, eta: Real, chi: Real = 1.5, rho: Real = 0.05, eps: Real = 1e-12, **rest: Any) -> ThrottleConfig:
        """``alpha = min(1, chi / (eta * (max(C, S) + eps)))``: keep eta * curvature below chi."""
        return cls.of_law("stability_margin", eta=eta, chi=chi, rho=rho, eps=eps, **rest)

    @classmethod
    def inverse_curvature(cls, *, eta: Real, beta: Real = 1, alpha_min: Real = 0.01, **rest: Any) -> ThrottleConfig:
        """``alpha = clamp(1 / (1 + beta * S), alpha_min, 1)``: shrink with the smoothed curvature."""
        return cls.of_law("inverse_curvature", eta=eta, beta=beta, alpha_min=alpha_min, **rest)

    @classmethod
    def adgd(cls, *, eta: Real, **rest: Any) -> ThrottleConfig:
        """``alpha * eta = min(eta, 1 / (2 * C), growth cap)``: Malitsky and Mishchenko's adaptive descent, at most eta."""
        return cls.of_law("adgd", eta=eta, **rest)

    @classmethod
    def clip_norm(cls, *, eta: Real, max_norm: Real = 1, **rest: Any) -> ThrottleConfig:
        """``alpha = min(1, max_norm / ||G||)``: clip the gradient by its global norm."""
        return cls.of_law("clip_norm", eta=eta, max_norm=max_norm, **rest)

    @classmethod
    def trust_ratio(cls, *, eta: Real, trust: Real = 0.001, weight_decay: Real = 0, **rest: Any) -> ThrottleConfig:
        """``alpha = min(1, trust / (eta * (||G|| / ||theta|| + weight_decay)))``: the ratio of LARS, at most eta (LARC)."""
        return cls.of_law("trust_ratio", eta=eta, trust=trust, weight_decay=weight_decay, **rest)

    @classmethod
    def of_law(cls, law: str, **given: Any) -> ThrottleConfig:
        """A configuration from the name of a law, its parameters, and any other field."""
        if not isinstance(law, str) or law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
        return cls(**LAWS[law].fields(given))

    # ---------------------------------------------------------------- validation

    def __post_init__(self) -> None:
        self._lay_out()
        for name, (low, high) in LIMITS.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low, high))
        for name in ("enabled", "growth", "every_rail", "parity"):
            object.__setattr__(self, name, switch(name, getattr(self, name)))
        if self.residual_bits == 1:
            raise ValueError("residual_bits must be 0 or from 2 to 8, not 1")
        if self.population is not None:
            most = LIMITS["elements"][1]
            object.__setattr__(self, "population", whole("population", self.population, self.elements, most))
        for name in ("gradient", "weight", "update", "direction", *SHARED):
            if name in ("gradient", "weight", "update") or getattr(self, name) is not None:
                object.__setattr__(self, name, _format(name, getattr(self, name)))
        self._check_shared()
        self._check_segments()
        for name, kind in (("source", Source), ("ema_start", EmaStart), ("on_still", OnStill), ("motion", Motion)):
            value = getattr(self, name)
            if name == "motion" and value is None:
                value = self.default_motion
            try:
                object.__setattr__(self, name, kind(value))
            except ValueError:
                names = ", ".join(member.value for member in kind)
                raise ValueError(f"{name} must be one of {names}, not {value!r}") from None
        self._check_motion()
        if self.eta_max is None:
            object.__setattr__(self, "eta_max", self.eta)
        for name in ("eta", "eta_max", "num", "bias", "gain", "alpha_min", "rho", "eps", "gradient_floor", "norm_growth"):
            object.__setattr__(self, name, real(name, getattr(self, name)))
        if self.eta == 0:
            raise ValueError("eta must be greater than 0, not 0")
        for name in ("rho", "alpha_min"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be between 0 and 1, not {shown(_fraction(getattr(self, name)))}")
        if _fraction(self.eta_max) < _fraction(self.eta):
            raise ValueError(f"eta_max must be at least eta = {shown(_fraction(self.eta))}, not {shown(_fraction(self.eta_max))}")
        if self.population is not None and self.source is Source.RATIO:
            raise ValueError("population must not be given with the source ratio: its shards would have to exchange more")
        self.constants  # noqa: B018  each refuses what is not a scalar
        self._check_widths()
        self._check_exponents()
        self._check_watchdog()

    def _lay_out(self) -> None:
        """Segments from what was given: none, a number of entries, or a list."""
        given: Any = item(self.segments)
        if isinstance(given, int) and not isinstance(given, bool):
            entries = whole("segments", given, *LIMITS["entries"])
            if self.entries and self.entries != entries:
                raise ValueError(f"entries must be {entries}, as segments says, not {self.entries!r}")
            object.__setattr__(self, "entries", entries)
            given = ()
        limit = whole("scale_max", self.scale_max, *LIMITS["scale_max"])
        found = layouts.parse(given, limit)
        if not found and whole("entries", self.entries, *LIMITS["entries"]):
            found = (Segment(whole("elements", self.elements, *LIMITS["elements"]), 0, "all"),)
        object.__setattr__(self, "segments", found)
        if found and not self.entries:
            object.__setattr__(self, "entries", len(found))

    def _check_segments(self) -> None:
        """The layout fits the table, and the unit is one that can have it."""
        if self.capacity is not None:
            if not self.segments:
                raise ValueError(f"capacity must not be given without segments, not {self.capacity!r}")
            most = self.population or LIMITS["elements"][1]  # the widths of energies are those of the population
            object.__setattr__(self, "capacity", whole("capacity", self.capacity, self.elements, most))
        if not self.segments:
            object.__setattr__(self, "scale_max", MOST_SCALE)  # of nothing
            return
        if len(self.segments) > self.entries:
            raise ValueError(f"segments must be at most entries = {self.entries}, not {len(self.segments)}")
        total = sum(segment.elements for segment in self.segments)
        if total != self.elements:
            raise ValueError(f"elements must be the sum of those of the segments, {total}, not {self.elements}")

    def refuse_segments(self, where: str) -> None:
        """For what takes a unit without segments alone; ``where`` says what that is.

        Raises:
            ValueError: there are segments.
        """
        if self.segments:
            raise ValueError(f"segments must not be given {where}, not {len(self.segments)}")

    @property
    def default_motion(self) -> Motion:
        """Along the intended step where the applied one is mostly rounding: an update that rounds at random, or a residual.

        And beside shards of other formats, or with segments: where those with coarse weights stand still, the motion of the
        others is no measure.
        """
        source = Source(self.source)
        moves = self.stochastic or self.residual_bits > 0 or self.weight_grid is not None or bool(self.segments)
        return Motion.INTENDED if source.is_projection or (source.is_curvature and moves) else Motion.APPLIED

    def _check_shared(self) -> None:
        """The formats that shards exchange energies in have to hold this one's own."""
        for name in SHARED:
            shared: Any = getattr(self, name)
            own: Any = getattr(self, name.removesuffix("_grid")) or self.gradient
            if shared is None:
                continue
            if self.population is None:
                raise ValueError(f"{name} must not be given without population, not {shared}: it is of what shards exchange")
            own = own.extended(self.finest)
            if shared.fraction_bits < own.fraction_bits or shared.integer_bits < own.integer_bits:
                raise ValueError(f"{name} must hold {own} of this shard, not {shared}: as many integer and fraction bits")

    def _check_motion(self) -> None:
        source = Source(self.source)
        if source.is_projection and self.motion is Motion.APPLIED:
            raise ValueError(f"motion must be intended with the source {source}, not applied: it projects onto the intended step")
        if source.is_projection and self.direction is not None:
            raise ValueError(f"direction must not be given with the source {source}, not {self.direction}: the step is along G")
        if self.motion is Motion.INTENDED and not source.is_curvature:
            raise ValueError(f"motion must be applied with the source {source}, not intended: it looks at no motion")
        if self.motion is Motion.INTENDED and self.step_bits > self.mantissa_bits:
            why = "" if source.is_projection or self.default_motion is Motion.APPLIED else " (the default with this rounding)"
            raise ValueError(
                f"step_bits must be at most mantissa_bits = {self.mantissa_bits} with the motion intended{why}, not "
                f"{self.step_bits}: the step size has to be a scalar; take fewer, or motion = applied"
            )

    def _check_exponents(self) -> None:
        """Norms, and with an intended motion the step size, have to be within the scalars' range."""
        low, high = self.scalar.exponents
        moving = "direction" if self.intended else "weight"
        for name, fmt, bits in (
            ("gradient", self.shared.gradient, self.widths.gradient_energy),
            (moving, self.shared._asdict()[moving], self.widths.motion_energy),
        ):
            least, most = -fmt.fraction_bits - self.mantissa_bits, (bits + 1) // 2 - fmt.fraction_bits - self.mantissa_bits + 1
            if not (low <= least and most <= high):
                raise ValueError(
                    f"{self._of(name)} = {fmt} gives norms with exponents {least}..{most}; "
                    f"exponent_bits = {self.exponent_bits} holds {low}..{high}"
                )
        least = 1 - self.step.fraction_bits - self.mantissa_bits
        if self.intended and not low <= least <= high - self.step_bits:
            raise ValueError(
                f"step_bits = {self.step_bits} gives step sizes with exponents from {least} on, which the motion intended takes "
                f"as scalars; exponent_bits = {self.exponent_bits} holds {low}..{high}; take more, or motion = applied"
            )

    def _of(self, name: str) -> str:
        """The field that says on which grid energies of this name are."""
        wanted = "gradient" if name == "direction" and not (self.direction or self.direction_grid) else name
        return f"{wanted}_grid" if getattr(self, f"{wanted}_grid") else wanted

    def _check_watchdog(self) -> None:
        watched: Any = self.watchdog
        if isinstance(watched, str) or not isinstance(watched, (tuple, list)):
            raise ValueError(f"watchdog must be a list of names, not {watched!r}")
        for name in watched:
            if name not in WATCHES:
                raise ValueError(f"watchdog must name conditions among {', '.join(WATCHES)}, not {name!r}")
            if watched.count(name) > 1:
                raise ValueError(f"watchdog must name a condition once, not {name!r} again")
        object.__setattr__(self, "watchdog", tuple(name for name in WATCHES if name in watched))
        if self.population is not None and "gradient_floor" in self.watchdog and Source(self.source).is_curvature:
            raise ValueError(
                "watchdog must not name gradient_floor with population: shards exchange no sum of squares of G itself"
            )
        if "gradient_floor" in self.watchdog and not self.floor_energy:
            raise ValueError("gradient_floor must be greater than 0 where watchdog names it, not 0: no norm is below that")
        if self.floor_energy.bit_length() > self.widths.gradient_energy:
            raise ValueError(
                f"gradient_floor must be a norm that {self.gradient} can reach with {self.elements} elements, "
                f"not {shown(_fraction(self.gradient_floor))}"
            )
        if not (_fraction(self.norm_growth) >= Fraction(1, 16) and self.growth_squared < 1 << BLOCK_BITS // 2):
            raise ValueError(f"norm_growth must be from 1/16 to 255.999, not {shown(_fraction(self.norm_growth))}")

    def _check_widths(self) -> None:
        widths = self.widths
        for name, interval in (("update", widths.product), ("update", widths.rounded), ("weight", widths.sum)):
            if interval.signed_bits > MAX_WORD:
                raise ValueError(
                    f"{name} = {getattr(self, name)} needs an intermediate of {interval.signed_bits} bits; "
                    f"the bound is {MAX_WORD} (direction {self.grids.direction.name}, step {self.step.name})"
                )
        if abs(widths.update_shift) > MAX_WORD or widths.weight_shift > MAX_WORD:
            raise ValueError(
                f"update = {self.update} lies {widths.update_shift} bits from the product's grid; the bound is {MAX_WORD}"
            )

    # ---------------------------------------------------------------- derived

    @cached_property
    def grids(self) -> Grids:
        """The formats, typed: gradient, weight, update, step and direction."""
        assert isinstance(self.gradient, Fixed) and isinstance(self.weight, Fixed) and isinstance(self.update, Fixed)
        assert self.direction is None or isinstance(self.direction, Fixed)
        return Grids(self.gradient, self.weight, self.update, self.step, self.direction or self.gradient)

    @cached_property
    def shared(self) -> Grids:
        """The formats whose grids A and B are on: the unit's own, but for shards beside shards of other formats.

        With segments the own are those of the largest scale that one may have.
        """
        own = self.grids
        found = {name: getattr(self, name) or getattr(own, name.removesuffix("_grid")).extended(self.finest) for name in SHARED}
        if self.direction is None and self.direction_grid is None:
            found["direction_grid"] = found["gradient_grid"]
        return own._replace(**{name.removesuffix("_grid"): fmt for name, fmt in found.items()})

    def grids_at(self, scale: int) -> Grids:
        """The formats of a segment of that scale."""
        own = self.grids
        return Grids(*(fmt if fmt is own.step else fmt.finer(scale) for fmt in own))

    @property
    def finest(self) -> int:
        """Bits by which the finest grid that a segment may have is finer than the unit's."""
        return self.scale_max if self.segments else 0

    @property
    def gradient_shift(self) -> int:
        """Bits that a shard's own A, of segments on the grid of the finest, is shifted up by before it is exchanged."""
        return 2 * (self.shared.gradient.fraction_bits - self.grids.gradient.fraction_bits - self.finest)

    @property
    def motion_shift(self) -> int:
        """And its own B."""
        own, shared = self.grids, self.shared
        if self.intended:
            return 2 * (shared.direction.fraction_bits - own.direction.fraction_bits - self.finest)
        return 2 * (shared.weight.fraction_bits - own.weight.fraction_bits - self.finest)

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """The elements whose sums are shifted alike: all of a unit or a shard, or each segment."""
        if not self.segments:
            return (Stretch(slice(0, self.elements), self.gradient_shift, self.motion_shift),)
        finer = [2 * (self.scale_max - segment.scale) for segment in self.segments]
        return tuple(
            Stretch(place, shift + self.gradient_shift, shift + self.motion_shift)
            for (_, place), shift in zip(layouts.slices(self.segments), finer, strict=True)
        )

    @property
    def energy_fractions(self) -> dict[str, int]:
        """A and B are integers on the grids 2**-(2*f): f of each."""
        shared = self.shared
        return {
            "A": shared.gradient.fraction_bits,
            "B": (shared.direction if self.intended else shared.weight).fraction_bits,
        }

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
        rail = max(abs(r) for r in self.grids.direction.rails) * self.grids.direction.ulp
        return rail * self.step.ulp / 2 / self.grids.update.ulp

    @property
    def scalar(self) -> ScalarFormat:
        return ScalarFormat(self.mantissa_bits, self.exponent_bits)

    @property
    def beats(self) -> int:
        """Stream beats a pass takes, ceil(N / L); each segment begins on a new one."""
        return layouts.beats(self.segments, self.lanes) if self.segments else -(-self.elements // self.lanes)

    @property
    def tail(self) -> int:
        """Elements in the last beat, 1..L."""
        last = self.segments[-1].elements if self.segments else self.elements
        return (last - 1) % self.lanes + 1

    @property
    def room(self) -> int:
        """The most elements of the unit: its own, or those of any layout that fits it."""
        return self.capacity or self.elements

    @property
    def words(self) -> int:
        """Beats that its memories hold: those of a pass, and with segments those of any layout that fits it."""
        return layouts.words(self.room, self.entries, self.lanes) if self.segments else self.beats

    @cached_property
    def constants(self) -> dict[str, Scalar]:
        """What the host writes into the unit: each the scalar nearest to the real value."""
        return self.constants_at(_fraction(self.eta))

    def at_rate(self, eta: Real) -> dict[str, Fraction | None]:
        """The fields that another learning rate changes, eta and what the law makes of it; a quotient by zero is None.

        Raises:
            ValueError: the rate is not from 0 to ``eta_max``.
        """
        rate = real("eta", eta)
        if rate > _fraction(self.eta_max):
            raise ValueError(f"eta must be from 0 to eta_max = {written(_fraction(self.eta_max))}, not {written(rate)}")
        return {"eta": rate} | at_rate({name: getattr(self, name) for name in RATED}, rate)

    def constants_at(self, eta: Real) -> dict[str, Scalar]:
        """The constants at another learning rate from 0 to ``eta_max``: eta, and what the law makes of it.

        At 0 a constant that is a quotient by eta is the largest finite scalar.
        """
        # eps before bias: in the stability margin they are one number, and an error names the one that was given.
        reals: dict[str, Fraction | None] = {
            name: _fraction(getattr(self, name)) for name in ("eta", "num", "gain", "rho", "eps", "bias", "alpha_min")
        }
        reals |= self.at_rate(eta) if eta != self.eta else {}
        reals["keep"] = 1 - _fraction(self.rho)
        made = {
            name: self.scalar.largest if value is None else self.scalar.constant(value, name=name)
            for name, value in reals.items()
        }
        made["still_norm"] = self.scalar.constant(self.still_energy, name="weight: half an ulp times sqrt(N)", root=True)
        return {name: made[name] for name in CONSTANTS}

    @cached_property
    def still_energy(self) -> Fraction:
        """The squared length of a step in which every weight moves by half an ulp of its own."""
        if self.segments and self.population is None:  # a shard knows nothing of the segments of others
            half = self.grids.weight.ulp / 2
            return sum((segment.elements * (half / 2**segment.scale) ** 2 for segment in self.segments), Fraction(0))
        return (self.shared.weight.ulp / 2) ** 2 * (self.population or self.elements)

    @cached_property
    def widths(self) -> Widths:
        """Every intermediate range of the datapath."""
        projects = Source(self.source).is_projection
        return derive(self.grids, self.shared, self.population or self.room, self.residual_bits, self.intended, projects)

    @property
    def asks_moved(self) -> bool:
        """Whether B does not tell that a weight has moved, so that it has to be noted beside it."""
        return self.intended or self.source is Source.RATIO

    @property
    def intended(self) -> bool:
        """Whether B is the energy of the direction, and the motion that of the intended step."""
        return self.motion is Motion.INTENDED

    @property
    def counters(self) -> tuple[str, ...]:
        """The names of the counters that the unit has."""
        return counters(self.every_rail)

    @property
    def stochastic(self) -> bool:
        """Whether the update's rounding draws random numbers."""
        assert isinstance(self.update, Fixed)
        return self.update.rounding is Rounding.STOCHASTIC

    @property
    def lane_seeds(self) -> tuple[int, ...]:
        """What each lane's generator holds at reset, an integer of 63 bits; see :mod:`kappa_rtl.golden.random`."""
        return lane_seeds(self.seed, self.lanes)

    @cached_property
    def initial_step(self) -> int:
        """What ``delay`` applies in the first step, before alpha was ever decided: eta alone, on the step grid."""
        return min(round(_fraction(self.eta) / self.step.ulp), self.step.rails[1])

    @cached_property
    def floor_energy(self) -> int:
        """T: ``||G|| < gradient_floor`` exactly if the sum of squares of G, on the grid 2**-(2*f), is less than this integer."""
        return math.ceil((_fraction(self.gradient_floor) / self.shared.gradient.ulp) ** 2)

    @cached_property
    def growth_squared(self) -> int:
        """R: the square of ``norm_growth``, rounded to nearest even on the grid 2**-8."""
        return round(_fraction(self.norm_growth) ** 2 * (1 << GROWTH_FRACTION))

    # ---------------------------------------------------------------- text

    def replace(self, **changes: Any) -> ThrottleConfig:
        """A copy with some fields changed, validated anew.

        A motion that is the default, or that another kind of source has not, is what the changed fields have by default, where
        none is given.
        """
        other = "source" in changes and changes["source"] not in Source(self.source).alike
        if "motion" not in changes and (other or self.motion is self.default_motion):
            changes["motion"] = None
        return dataclasses.replace(self, **changes)

    def to_table(self) -> dict[str, Any]:
        """The configuration as a TOML table; :meth:`from_table` reads it back to an equal object.

        A configuration that is one of the published laws is written as that law.
        """
        table: dict[str, Any] = {}
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        law = recognise(fields)
        if law is not None:
            name, parameters = law
            table |= {"law": name} | {key: written(value) for key, value in parameters.items()}
            fields = {key: value for key, value in fields.items() if key not in LAWS[name].sets}
            if Source(self.source).is_projection:
                fields["source"] = Source.PROJECTION
        if not self.segments:
            fields = {key: value for key, value in fields.items() if key not in ("segments", "entries", "scale_max")}
        for key, value in fields.items():
            match value:
                case None:
                    continue
                case (Segment(), *_):
                    table[key] = [segment.to_table() for segment in value]
                case Fraction():
                    table[key] = written(value)
                case Fixed() | str():
                    table[key] = str(value)
                case tuple():
                    table[key] = list(value)
                case _:
                    table[key] = value
        return table

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> ThrottleConfig:
        """A configuration from a TOML table; ``law`` may name a published law, with that law's own parameters."""
        values = dict(table)
        law = values.pop("law", None)
        if law is not None and (not isinstance(law, str) or law not in LAWS):
            raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
        known = {field.name for field in dataclasses.fields(cls)} | set(LAWS[law].parameters if law else ())
        for name in values:
            if name not in known:
                raise ValueError(f"{name} is no field of a throttle configuration; it has {', '.join(sorted(known))}")
        if isinstance(values.get("segments"), list) and values["segments"] and "elements" not in values:
            limit = whole("scale_max", values.get("scale_max", MOST_SCALE), *LIMITS["scale_max"])
            values["elements"] = sum(segment.elements for segment in layouts.parse(values["segments"], limit))
        for name in ("elements", "eta"):
            if name not in values:
                raise ValueError(f"{name} must be given")
        return cls.of_law(law, **values) if law else cls(**values)

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

    def _repr_html_(self) -> str:
        """For a notebook: the law and the fields, as a configuration file has them."""
        return html("ThrottleConfig", ["field", "value"], self.to_table().items())

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
            "motion": str(self.motion),
            "on_still": str(self.on_still),
            "ema_start": str(self.ema_start),
            "enabled": self.enabled,
            "dead_after": self.dead_after,
            "counter_bits": COUNTER_BITS,
            "constants": {name: list(value) for name, value in self.constants.items()},
            "growth": self.growth,
            "delay": self.delay,
            "residual_bits": self.residual_bits,
            "every_rail": self.every_rail,
            "parity": self.parity,
            "population": self.population or self.elements,
            "random": {"bits": self.random_bits, "lane_seeds": list(self.lane_seeds)} if self.stochastic else None,
            "watchdog": {
                "watches": list(self.watchdog),
                "floor_energy": self.floor_energy,
                "growth_squared": self.growth_squared,
            }
            if self.watchdog
            else None,
        } | self._more_registers()

    def _more_registers(self) -> dict[str, Any]:
        """What only some units have."""
        more: dict[str, Any] = {"energy_fractions": self.energy_fractions} if self.shared != self.grids else {}
        if self.segments:
            more |= {
                "segments": [segment.to_table() for segment in self.segments],
                "entries": self.entries,
                "scale_max": self.scale_max,
                "capacity": self.room,
            }
        return more


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
    if fmt.rounding is Rounding.STOCHASTIC and name != "update":
        raise ValueError(
            f"{name}: rounding must be a deterministic mode, not {fmt.rounding.value!r}; the update's alone may be it"
        )
    return fmt


def _fraction(value: Real | None) -> Fraction:
    assert isinstance(value, Fraction)
    return value
