"""The numeric contract a third time, in exact rationals: the oracle of the golden model.

Written from the contract's page alone and sharing no arithmetic with ``golden/``: a :class:`ThrottleConfig` is read for
its formats, modes and real parameters, and everything else, the constants and the step format included, is worked out
here again. Plain loops over ``Fraction``; slow. In one file: it is meant to be read beside the contract, from top to bottom.

A fixed-point value is an integer code, a scalar is the ``Fraction`` that it stands for; ``Scalars.pair`` gives its
``[m, e]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed

HALF = Fraction(1, 2)
COUNT_MODULUS = 2**32
WATCHES = ("gradient_floor", "norm_growth", "learning_dead", "scalar_overflow")


def power_of_two(exponent: int) -> Fraction:
    """``2**exponent``, exact for either sign of the exponent."""
    return Fraction(2) ** exponent


# -------------------------------------------------------------------------------------------------- rounding and overflow


def round_integer(x: Fraction, mode: str) -> int:
    """The integer that ``mode`` chooses for x: x itself if it is one, else one of its two neighbours."""
    below = math.floor(x)
    above = math.ceil(x)
    if below == above:
        return below
    nearer_zero, farther = (below, above) if x > 0 else (above, below)
    if mode == "floor":
        return below
    if mode == "toward_zero":
        return nearer_zero
    if x - below < above - x:
        return below
    if x - below > above - x:
        return above
    tie = {
        "nearest_even": below if below % 2 == 0 else above,
        "nearest_up": above,
        "nearest_down": below,
        "nearest_zero": nearer_zero,
        "nearest_away": farther,
    }
    return tie[mode]


def rails(fmt: Fixed) -> tuple[int, int]:
    """The smallest and the largest code of a format, after rounding and overflow."""
    width = fmt.integer_bits + fmt.fraction_bits
    if not fmt.signed:
        return 0, 2**width - 1
    if str(fmt.overflow) == "saturate_symmetric":
        return -(2 ** (width - 1)) + 1, 2 ** (width - 1) - 1
    return -(2 ** (width - 1)), 2 ** (width - 1) - 1


def near_rail(fmt: Fixed) -> int:
    """The smallest magnitude, in ulps, that is near a rail: 0.95 of the larger rail, rounded up to the grid."""
    low, high = rails(fmt)
    return math.ceil(Fraction(95, 100) * max(-low, high))


def fit(code: int, fmt: Fixed) -> int:
    """A rounded code brought into the format by its overflow mode."""
    low, high = rails(fmt)
    if low <= code <= high:
        return code
    mode = str(fmt.overflow)
    if mode in ("saturate", "saturate_symmetric"):
        return low if code < low else high
    if mode == "wrap":
        return (code - low) % 2 ** (fmt.integer_bits + fmt.fraction_bits) + low
    assert mode == "zero", mode
    return 0


def round_to_grid(value: Fraction, fmt: Fixed) -> int:
    """A real value rounded to the format's grid, before overflow."""
    return round_integer(value * power_of_two(fmt.fraction_bits), str(fmt.rounding))


def quantise(value: Fraction, fmt: Fixed) -> int:
    """The code of a real value: rounded to the grid once, then brought into range."""
    return fit(round_to_grid(value, fmt), fmt)


def real(code: int, fmt: Fixed) -> Fraction:
    """The value of a code."""
    return code * power_of_two(-fmt.fraction_bits)


# -------------------------------------------------------------------------------------------------- scalars


class Scalars:
    """Correctly rounded non-negative scalars, with the two sticky flags."""

    def __init__(self, mantissa_bits: int, exponent_bits: int) -> None:
        self.mantissa_bits = mantissa_bits
        self.lowest = -(2 ** (exponent_bits - 1))
        self.highest = 2 ** (exponent_bits - 1) - 1
        self.overflow = False
        self.underflow = False

    @property
    def largest(self) -> Fraction:
        return (2**self.mantissa_bits - 1) * power_of_two(self.highest)

    def pair(self, x: Fraction) -> list[int]:
        """``[m, e]`` of a scalar: ``[0, 0]``, or x = m * 2**e with m of exactly M bits."""
        if x == 0:
            return [0, 0]
        e = self._exponent(x)
        m = x / power_of_two(e)
        assert m.denominator == 1, f"{x} is not a scalar of {self.mantissa_bits} bits"
        return [int(m), e]

    def _exponent(self, x: Fraction) -> int:
        """The e with ``2**(M-1) <= x / 2**e < 2**M``."""
        e = x.numerator.bit_length() - x.denominator.bit_length() - self.mantissa_bits
        while x >= power_of_two(e + self.mantissa_bits):
            e += 1
        while x < power_of_two(e + self.mantissa_bits - 1):
            e -= 1
        return e

    def _in_range(self, m: int, e: int) -> Fraction:
        if m == 2**self.mantissa_bits:  # the carry out of the mantissa
            m, e = m // 2, e + 1
        assert 2 ** (self.mantissa_bits - 1) <= m < 2**self.mantissa_bits
        if e > self.highest:
            self.overflow = True
            return self.largest
        if e < self.lowest:
            self.underflow = True
            return Fraction(0)
        return m * power_of_two(e)

    def rnd(self, x: Fraction | int) -> Fraction:
        """x rounded to M significant bits, ties to even, then checked against the exponent's range."""
        x = Fraction(x)
        assert x >= 0
        if x == 0:
            return x
        e = self._exponent(x)
        return self._in_range(round_integer(x / power_of_two(e), "nearest_even"), e)

    def normalise(self, integer: int, scale: int) -> Fraction:
        return self.rnd(integer * power_of_two(scale))

    def add(self, a: Fraction, b: Fraction) -> Fraction:
        return self.rnd(a + b)

    def mul(self, a: Fraction, b: Fraction) -> Fraction:
        return self.rnd(a * b)

    def div(self, a: Fraction, b: Fraction) -> Fraction:
        if b != 0:
            return self.rnd(a / b)
        if a == 0:
            return Fraction(0)
        self.overflow = True
        return self.largest

    def sqrt(self, x: Fraction) -> Fraction:
        """rnd of the exact root, which may be irrational: decided by comparing squares."""
        if x == 0:
            return Fraction(0)
        m_bits = self.mantissa_bits
        e = (x.numerator.bit_length() - x.denominator.bit_length()) // 2 - m_bits
        while x >= power_of_two(2 * (e + m_bits)):
            e += 1
        while x < power_of_two(2 * (e + m_bits - 1)):
            e -= 1
        square = x / power_of_two(2 * e)  # 4**(M-1) <= square < 4**M
        low, high = 2 ** (m_bits - 1), 2**m_bits  # low**2 <= square < high**2
        while high - low > 1:
            middle = (low + high) // 2
            if middle * middle <= square:
                low = middle
            else:
                high = middle
        midpoint = (low + HALF) ** 2
        up = square > midpoint or (square == midpoint and low % 2 == 1)
        return self._in_range(low + 1 if up else low, e)

    def ema(self, keep: Fraction, rho: Fraction, average: Fraction, value: Fraction) -> Fraction:
        return self.add(self.mul(keep, average), self.mul(rho, value))


# -------------------------------------------------------------------------------------------------- the configuration's


def step_format(config: ThrottleConfig) -> tuple[int, int]:
    """``(integer bits, fraction bits)`` of the unsigned step format: i = floor(log2(eta_max)) + 1."""
    eta_max = Fraction(config.eta_max)  # type: ignore[arg-type]
    i = 0
    while power_of_two(i) <= eta_max:
        i += 1
    while power_of_two(i - 1) > eta_max:
        i -= 1
    return i, config.step_bits - i


def scales(config: ThrottleConfig) -> list[int]:
    """By how many bits the grids of each element are finer than the unit's."""
    return [segment.scale for segment in config.segments for _ in range(segment.elements)] or [0] * config.elements


def lanes(config: ThrottleConfig) -> list[int]:
    """The lane of each element: a segment begins on a beat of its own, in lane 0."""
    sizes = [segment.elements for segment in config.segments] or [config.elements]
    return [n % config.lanes for size in sizes for n in range(size)]


def scaled(fmt: Fixed, bits: int) -> Fixed:
    """The format of as many bits, so many of them moved below the binary point."""
    return Fixed(fmt.signed, fmt.integer_bits - bits, fmt.fraction_bits + bits, fmt.rounding, fmt.overflow)


def constants(config: ThrottleConfig, weight_fraction: int | None = None) -> dict[str, Fraction]:
    """The host's constants, each rnd of the real value; with shards of several formats, the finest weights' fraction bits."""
    s = Scalars(config.mantissa_bits, config.exponent_bits)
    rho = Fraction(config.rho)
    fraction = config.grids.weight.fraction_bits if weight_fraction is None else weight_fraction
    made = {
        "eta": s.rnd(Fraction(config.eta)),
        "num": s.rnd(Fraction(config.num)),
        "bias": s.rnd(Fraction(config.bias)),
        "gain": s.rnd(Fraction(config.gain)),
        "rho": s.rnd(rho),
        "keep": s.rnd(1 - rho),
        "eps": s.rnd(Fraction(config.eps)),
        "alpha_min": s.rnd(Fraction(config.alpha_min)),
        # half a weight ulp times sqrt(N), as the root of its square
        "still_norm": s.sqrt(sum(((power_of_two(-bits - fraction) * HALF) ** 2 for bits in scales(config)), Fraction(0))),
    }
    assert not (s.overflow or s.underflow), "the configuration should have refused this"
    return made


# -------------------------------------------------------------------------------------------------- random numbers


class Lane:
    """The random bits of one lane, one after the other, from the contract's recurrence."""

    def __init__(self, seed: int, lane: int) -> None:
        state = seed
        for _ in range(lane + 1):  # SplitMix64, output by output
            state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z // 2**30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z // 2**27)) * 0x94D049BB133111EB % 2**64
        z = (z ^ (z // 2**31)) % 2**63
        self.bits = [(z or 1) // 2**i % 2 for i in range(63)]

    def draw(self) -> int:
        """The next 16 bits, the first one most significant."""
        word = 0
        for _ in range(16):
            self.bits.append((self.bits[-63] + self.bits[-62]) % 2)
            word = 2 * word + self.bits[-1]
        del self.bits[:-63]
        return word


# -------------------------------------------------------------------------------------------------- the unit


class SpecThrottle:
    """One throttle unit: ``theta`` codes in, ``step`` by ``step``; registers as the golden model reports them."""

    def __init__(self, config: ThrottleConfig, theta: Sequence[int]) -> None:
        assert len(theta) == config.elements
        self.config = config
        self.k = constants(config)
        self.scalars = Scalars(config.mantissa_bits, config.exponent_bits)
        i, f = step_format(config)
        self.step_grid = Fixed(False, i, f)
        self.theta = [int(t) for t in theta]
        self.P = [0] * config.elements
        self.B = 0
        self.C = Fraction(0)
        self.S = Fraction(0)
        self.first = True
        self.seen = False
        self.moved = False
        self.applied = 0
        self.alphas: list[Fraction] = []
        self.pending = quantise(Fraction(config.eta), self.step_grid)  # what `delay` applies first
        self.residual = [Fraction(0)] * config.elements
        self.lanes = [Lane(config.seed, lane) for lane in range(config.lanes)]
        self.scales, self.lane_of = scales(config), lanes(config)
        # Energies are real numbers here; registers show them on the grid of the finest scale that a segment may have.
        self.finest = 2 * config.scale_max if config.segments else 0
        self.number = 0
        self.blocks: list[int] = []
        self.cap: Fraction | None = None
        self.clear()

    def clear(self) -> None:
        """What the host's clear does: counters, flags and the run of still steps; no other state."""
        self.counts = dict.fromkeys(
            (
                "gradient_saturated",
                "gradient_near_rail",
                "update_saturated",
                "update_underflow",
                "weight_saturated",
                "weight_near_rail",
                "update_rail",
                "update_near_rail",
                "step_rail",
                "step_near_rail",
                "still_steps",
            ),
            0,
        )
        self.fired: dict[str, int] = {}
        self.still_run = 0
        self.learning_dead = False
        self.step_overflow = False
        self.scalars.overflow = False
        self.scalars.underflow = False

    def set_rate(self, eta: Fraction) -> None:
        """Another learning rate: its scalar, and those of the law's constants that it is a part of, from their definitions."""
        config, s = self.config, Scalars(self.config.mantissa_bits, self.config.exponent_bits)
        old, law = Fraction(config.eta), config.to_table().get("law")
        assert 0 <= eta <= Fraction(config.eta_max)  # type: ignore[arg-type]
        self.k["eta"] = s.rnd(eta)
        if law in ("stability_margin", "trust_ratio"):  # num is chi / eta, or trust / eta
            self.k["num"] = s.rnd(Fraction(config.num) * old / eta) if eta else s.largest
        elif law == "adgd":
            self.k["gain"] = s.rnd(2 * eta)
        assert not (s.overflow or s.underflow), "the unit should have refused this"

    def _count(self, name: str) -> None:
        if name.startswith(("update_rail", "update_near", "step_")) and not self.config.every_rail:
            return
        self.counts[name] = (self.counts[name] + 1) % COUNT_MODULUS

    def _count_rails(self, tensor: str, code: int, fmt: Fixed, name: str = "saturated") -> None:
        low, high = rails(fmt)
        if (fmt.signed and code <= low) or code >= high:
            self._count(f"{tensor}_{name}")
        if abs(code) >= near_rail(fmt):
            self._count(f"{tensor}_near_rail")

    def alpha(self, x: Fraction) -> Fraction:
        """The law at curvature x."""
        s, k = self.scalars, self.k
        q = s.add(k["bias"], s.mul(k["gain"], x))
        t = Fraction(1) if q == 0 else s.div(k["num"], q)
        if self.cap is not None:
            t = min(t, self.cap)
        return min(Fraction(1), max(k["alpha_min"], t))

    def decide(self, ng: Fraction, nd: Fraction, stands: bool) -> Fraction:
        """Update C, S, seen; return alpha."""
        s, k, config = self.scalars, self.k, self.config
        if config.source == "norm":
            self.C = ng
        elif config.source == "ratio":
            self.C = Fraction(0) if self.first or nd == 0 else s.div(ng, nd)
        elif self.first or (stands and config.on_still == "hold"):
            pass
        elif stands and config.on_still in ("floor", "release"):
            self.C = s.div(ng, k["still_norm"])
            if config.on_still == "release":
                self.S = s.mul(k["keep"], self.S)
        else:
            self.C = s.div(ng, s.add(nd, k["eps"]))
            if "projection" in config.source:
                self.C = s.mul(s.mul(self.C, self.C), real(self.applied, self.step_grid))
            if not self.seen and config.ema_start == "first":
                self.S = self.C
            else:
                self.S = s.ema(k["keep"], k["rho"], self.S, self.C)
            self.seen = True
        larger = max(self.C, self.S)
        x = {"ema": self.S, "projection_ema": self.S, "max": larger, "projection": larger}.get(str(config.source), self.C)
        return self.alpha(x)

    def watch(self, norm_energy: int | Fraction) -> None:
        """The end of a step."""
        config, unit = self.config, self.config.grids.gradient
        energies, growth = self.blocks, round_integer(Fraction(config.norm_growth) ** 2 * 256, "nearest_even")
        holds = {
            "gradient_floor": norm_energy * power_of_two(-2 * unit.fraction_bits) < Fraction(config.gradient_floor) ** 2,
            "norm_growth": any(256 * b > growth * a for a, b in itertools.pairwise(energies)),
            "learning_dead": self.learning_dead,
            "scalar_overflow": self.scalars.overflow,
        }
        for name in config.watchdog:
            if holds[name]:
                self.fired.setdefault(name, self.number % COUNT_MODULUS)
        self.blocks = []

    def round_update(self, product: Fraction, n: int, draws: list[int], grid: Fixed) -> int:
        """The exact product rounded to the update grid, before overflow."""
        config = self.config
        if str(grid.rounding) != "stochastic":
            return round_to_grid(product, grid)
        drawn = draws[self.lane_of[n]] // 2 ** (16 - config.random_bits)
        r = (drawn + HALF) / 2**config.random_bits
        return math.floor(product * power_of_two(grid.fraction_bits) + r)

    def step(self, G: Sequence[int], D: Sequence[int] | None = None) -> dict[str, Any]:
        """One step on codes of the gradient grid; the registers after it, ``theta`` and ``update``."""
        config = self.config
        f_g, f_w = config.grids.gradient, config.grids.weight
        f_d = f_g if config.direction is None else config.direction
        assert isinstance(f_d, Fixed) and (D is not None or config.direction is None)
        D = G if D is None else D
        assert len(G) == len(D) == config.elements

        A = max(self.absorb(G), 0)
        scalars, step = self.decide_step(
            A * power_of_two(-2 * f_g.fraction_bits - self.finest),
            self.B * power_of_two(-2 * (f_d if config.motion == "intended" else f_w).fraction_bits - self.finest),
        )
        B, update = self.apply(D, step)
        self.watch(sum(int(g) ** 2 * power_of_two(-2 * bits) for g, bits in zip(G, self.scales, strict=True)))
        self.number += 1
        return {"A": A, "B": B, **scalars, **self.flags(), "theta": list(self.theta), "update": update}

    def absorb(self, G: Sequence[int]) -> int:
        """A of these elements, on the finest gradient's grid, squared; negative for a projection that points backwards."""
        config = self.config
        A = 0
        for n, g in enumerate(int(g) for g in G):
            d = g if config.source in ("ratio", "norm") else g - self.P[n]
            A += (-self.P[n] * d if "projection" in config.source else d * d) * 2 ** (self.finest - 2 * self.scales[n])
            self.P[n] = g
            self._count_rails("gradient", g, config.grids.gradient)
        return A

    def decide_step(self, A: Fraction, B: Fraction) -> tuple[dict[str, Any], int]:
        """The scalar part, from the two energies as real numbers: its registers, and the step size to apply."""
        config, s = self.config, self.scalars
        self.cap = None
        if config.growth and len(self.alphas) > 1:
            a1, a2 = self.alphas[-1], self.alphas[-2]
            self.cap = s.mul(s.sqrt(s.add(Fraction(1), s.div(a1, a2))), a1)
        ng, nd = s.sqrt(A), s.sqrt(B)
        intended = config.motion == "intended"
        if intended:
            nd = s.mul(nd, real(self.applied, self.step_grid))
        still = not self.first and not self.moved
        if still:
            self._count("still_steps")
            self.still_run += 1
        else:
            self.still_run = 0
        if self.still_run >= config.dead_after:
            self.learning_dead = True
        alpha = self.decide(ng, nd, nd == 0 if intended else still)
        self.first = False
        applied = alpha if config.enabled else Fraction(1)
        self.alphas.append(alpha)
        decided = quantise(applied * self.k["eta"], self.step_grid)
        if round_to_grid(applied * self.k["eta"], self.step_grid) > rails(self.step_grid)[1]:
            self.step_overflow = True
        self._count_rails("step", decided, self.step_grid, "rail")
        step = self.pending if config.delay else decided
        self.pending = decided
        self.applied = step
        found = {
            "norm_gradient": s.pair(ng),
            "norm_motion": s.pair(nd),
            "curvature": s.pair(self.C),
            "ema": s.pair(self.S),
            "alpha": s.pair(alpha),
            "step_size": decided,
            "still": still,
        }
        return found, step

    def apply(self, D: Sequence[int], step: int) -> tuple[int, list[int]]:
        """Move these elements: B on its grid, squared, and the updates."""
        config = self.config
        direction_grid = config.direction or config.grids.gradient
        assert isinstance(direction_grid, Fixed)
        intended, ratio = config.motion == "intended", config.source == "ratio"
        update = []
        B = 0
        self.moved = False
        for n, direction in enumerate(int(d) for d in D):
            if self.lane_of[n] == 0:
                draws = [lane.draw() for lane in self.lanes]
            f_w, f_d, y_grid = (scaled(fmt, self.scales[n]) for fmt in (config.grids.weight, direction_grid, config.grids.update))
            low, high = rails(y_grid)
            product = -real(direction, f_d) * real(step, self.step_grid) + self.residual[n]
            rounded = self.round_update(product, n, draws, y_grid)
            if rounded < low or rounded > high:
                self._count("update_saturated")
            y = fit(rounded, y_grid)
            if product != 0 and y == 0:
                self._count("update_underflow")
            update.append(y)
            self._count_rails("update", y, y_grid, "rail")
            exact = real(self.theta[n], f_w) + real(y, y_grid)
            new = quantise(exact, f_w)
            if config.residual_bits:
                dropped = product - real(rounded, y_grid) + exact - real(round_to_grid(exact, f_w), f_w)
                grid = Fixed(True, -f_w.fraction_bits, f_w.fraction_bits + config.residual_bits)
                low_e, high_e = rails(grid)
                kept = math.floor(dropped * power_of_two(grid.fraction_bits))
                self.residual[n] = real(min(high_e, max(low_e, kept)), grid)
            low_w, high_w = rails(f_w)
            if low_w <= round_to_grid(exact, f_w) <= high_w:
                self._count_rails("weight", new, f_w)
            else:  # whatever the overflow mode has made of it
                self._count("weight_saturated")
                if abs(new) >= near_rail(f_w):
                    self._count("weight_near_rail")
            moved = direction if intended else new if ratio else new - self.theta[n]
            B += moved**2 * 2 ** (self.finest - 2 * self.scales[n])
            self.moved |= new != self.theta[n]
            self.theta[n] = new
        self.B = B
        return B, update

    def flags(self) -> dict[str, Any]:
        """Counters and flags."""
        s = self.scalars
        return {
            **self.counts,
            "learning_dead": self.learning_dead,
            "scalar_overflow": s.overflow,
            "scalar_underflow": s.underflow,
            "step_overflow": self.step_overflow,
            "watchdog": sum(1 << i for i, name in enumerate(WATCHES) if name in self.fired),
            **{f"watchdog_step_{name}": self.fired.get(name, 0) for name in WATCHES},
            "memory_fault": False,
        }
