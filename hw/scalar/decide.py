"""The scalar part of a step: from the two energies to alpha and the step size."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden import config as golden_config
from ...golden.config import ThrottleConfig
from ...golden.formats import Scalar, ScalarFormat
from ...golden.registers import CONSTANTS, COUNTER_BITS, FLAGS
from .clamp import LAW, UNTHROTTLED, Source
from .ema import EMA, EMA_LATE, KEEP
from .operations import Operation, constant, scalar_layout
from .sequencer import Do, longest, sequence
from .unit import ScalarUnit


class OnStill(enum.Enum):
    """What a step does after one that moved no weight, as the host writes it."""

    FLOOR = 0
    HOLD = 1
    DIVIDE = 2
    RELEASE = 3

    @classmethod
    def of(cls, on_still: golden_config.OnStill) -> OnStill:
        return cls[on_still.name]


def constants_signature(fmt: ScalarFormat) -> wiring.Signature:
    """The law's constants, scalars that the host holds steady."""
    return wiring.Signature({name: Out(scalar_layout(fmt)) for name in CONSTANTS})


CONTROL = wiring.Signature({"source": Out(Source), "on_still": Out(OnStill), "ema_first": Out(1), "enabled": Out(1)})
"""The modes, held steady by the host: as the configuration names them; ``ema_first`` starts S at the first C."""


def constant_words(fmt: ScalarFormat, constants: Mapping[str, Scalar]) -> dict[str, int]:
    """What the host writes to the constant ports, by port name, as unsigned words."""
    return {f"constants_{name}": x.m | (x.e % (1 << fmt.exponent_bits)) << fmt.mantissa_bits for name, x in constants.items()}


def control_words(config: ThrottleConfig) -> dict[str, int]:
    """What the host writes to the control and constant ports for a configuration, by port name, as unsigned words."""
    assert isinstance(config.source, golden_config.Source) and isinstance(config.on_still, golden_config.OnStill)
    return constant_words(config.scalar, config.constants) | {
        "control_source": Source.of(config.source).value,
        "control_on_still": OnStill.of(config.on_still).value,
        "control_ema_first": int(config.ema_start is golden_config.EmaStart.FIRST),
        "control_enabled": int(config.enabled),
    }


def status_layout(config: ThrottleConfig) -> data.StructLayout:
    """What the scalar part found in its last step, and its own counters and flags."""
    scalar = scalar_layout(config.scalar)
    return data.StructLayout(
        {
            "norm_gradient": scalar,
            "norm_motion": scalar,
            "curvature": scalar,
            "ema": scalar,
            "alpha": scalar,
            "step_size": unsigned(config.step.width),
            "still": 1,
            "still_steps": unsigned(COUNTER_BITS),
        }
        | dict.fromkeys(FLAGS, 1)
    )


SETTLE = Do("settle", Operation.HOLD)
"""An operation that does nothing, in which the conditions settle."""

A_COMES = Do("gradient", Operation.HOLD, until="taken")
"""A is awaited; as it is taken its root is begun."""

B_COMES = (
    Do("respond", Operation.HOLD, until="answered"),
    Do("motion", Operation.HOLD, until="taken"),
    Do("root_motion", Operation.ROOT, "root_weight"),
    Do("moved", Operation.HOLD, store="norm_motion", then={"grows": "growth", "": "settle"}),
    # With growth: the cap of the next alpha is sqrt(1 + alpha / the alpha before) * alpha.
    Do("growth", Operation.LOAD, "alpha"),
    Do("growth_divide", Operation.DIVIDE, "before"),
    Do("growth_ratio", Operation.QUOTIENT),
    Do("growth_sum", Operation.ADD, "one"),
    Do("growth_level", Operation.HOLD, until="rooted"),
    Do("growth_root", Operation.ROOT, "level"),
    Do("growth_product", Operation.MUL, "alpha"),
    Do("grown", Operation.HOLD, store="cap", then={"": "settle"}),
)
"""The end of a step, which is offered, and what can be done for the next one: B is awaited, whose root that one divides by."""

INTENDED = (Do("root_motion", Operation.ROOT, "root_direction"), Do("intend", Operation.MUL, "scale"))
"""What stands in the place of the root of B with an intended motion: the length of the direction times the step size."""

CURVATURE = (
    SETTLE,
    A_COMES._replace(then={"keeps": "root_only"}),
    Do("recall", Operation.LOAD, "norm_motion"),
    Do("guarded", Operation.ADD, "eps"),
    Do("root", Operation.ROOT, "root_gradient", store="kept"),
    Do("curve", Operation.DIVIDE, "kept", store="norm_gradient"),
    *KEEP,
    Do("curvature", Operation.QUOTIENT, store="kept", then={"begins": "begin"}),
    *EMA,
    *LAW,
    *B_COMES,
    # The first C: S starts with it.
    Do("begin", Operation.HOLD, store="curvature"),
    Do("begun", Operation.HOLD, then={"": "see"}),
    # After a step that moved nothing, and in the first one: S stays, or forgets.
    Do("root_only", Operation.ROOT, "root_gradient", then={"holds": "hold"}),
    Do("curve_floor", Operation.DIVIDE, "still_norm", store="norm_gradient"),
    Do("curvature_floor", Operation.QUOTIENT),
    Do("curved", Operation.HOLD, store="curvature"),
    Do("stay", Operation.LOAD, "ema", then={"releases": "release", "": "see"}),
    Do("release", Operation.MUL, "keep", then={"": "see"}),
    # C stays, too.
    Do("hold", Operation.LOAD, "ema", store="norm_gradient", then={"": "see"}),
    *UNTHROTTLED,
)
"""A step, from one energy A to the next: what is done with the accumulator."""

PROJECTION = tuple(
    new
    for do in CURVATURE
    if do not in (*KEEP, *EMA)
    for new in (
        (do,)
        if do.name != "curvature"
        else (
            do._replace(name="quotient", store="", then={}),
            Do("level", Operation.HOLD, store="kept"),
            Do("levelled", Operation.HOLD),
            Do("square", Operation.MUL, "kept"),
            Do("project", Operation.MUL, "scale", then={"begins": "begin"}),
            *EMA_LATE,
        )
    )
)
"""The same where A is <P, P - G>: C is the square of the quotient of its root and the motion's length, times the step size."""

NORM = (
    SETTLE,
    A_COMES,
    Do("root", Operation.ROOT, "root_gradient"),
    Do("norm", Operation.HOLD, store="norm_gradient"),
    Do("curved", Operation.HOLD, store="curvature"),
    *LAW[1:],
    *B_COMES,
    *UNTHROTTLED,
)
"""The same where C is ||G||; S stays zero."""

RATIO = (
    SETTLE,
    A_COMES,
    Do("root", Operation.ROOT, "root_gradient", then={"vanishes": "none"}),
    Do("curve", Operation.DIVIDE, "norm_motion", store="norm_gradient"),
    Do("curvature", Operation.QUOTIENT),
    Do("curved", Operation.HOLD, store="curvature"),
    *LAW[1:],
    *B_COMES,
    # Weights that are all zero, and in the first step.
    Do("none", Operation.LOAD, "zero", store="norm_gradient", then={"": "curved"}),
    *UNTHROTTLED,
)
"""The same where C is ||G|| / ||theta||."""


def program_of(config: ThrottleConfig) -> tuple[Do, ...]:
    """What the unit of a configuration does in a step.

    Without growth the operations for it are left out, and ``recall`` too: ||dtheta|| still stands in the accumulator as A comes.
    """
    program: tuple[Do, ...] = CURVATURE
    if config.source is golden_config.Source.NORM:
        program = NORM
    elif config.source is golden_config.Source.RATIO:
        program = RATIO
    elif golden_config.Source(config.source).is_projection:
        program = PROJECTION
    if config.intended:
        program = tuple(new for do in program for new in (INTENDED if do.name == "root_motion" else (do,)))
    if config.growth:
        return program
    left_out = {"recall", "limit", *(do.name for do in program if do.name.startswith("grow"))}
    without = (do._replace(then={"": "settle"}) if do.name == "moved" else do for do in program)
    return tuple(do for do in without if do.name not in left_out)


class Decide(wiring.Component):
    """C, S and alpha from step to step, on one accumulator.

    Energies come in the order A, B, A, B, ...: A starts a step and is answered on ``o`` by its step size; B, the energy
    of what that step applied, prepares the next one (its root), while the next gradient streams in.
    What does not depend on A is done while its root is taken, and keep * S while C is divided.

    Ports: ``i`` energies, ``o`` step sizes, ``constants``, ``control``, ``clear`` (zeroes counters, flags and the run of
    still steps), ``status``, whose registers change only between taking an energy and answering it. With the source ``ratio``
    and with an intended motion ``moved``, as B is taken: whether a weight has moved.

    State at reset: C = S = 0, ``first``, not ``seen``.
    Latency: :attr:`latency` bounds the cycles from taking A to offering the step size, if B was taken at least
    :attr:`prelude` cycles before.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.unit = ScalarUnit.for_config(config)
        self.program = program_of(config)
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(config.widths.energy))),
                "o": Out(stream.Signature(unsigned(config.step.width))),
                "constants": In(constants_signature(config.scalar)),
                "control": In(CONTROL),
                "clear": In(1),
                "status": Out(status_layout(config)),
            }
            | ({"moved": In(1)} if config.asks_moved else {})
        )

    @property
    def latency(self) -> int:
        """The most cycles from taking A to offering the step size."""
        return longest(self.program, self.unit, "gradient", "respond")

    @property
    def prelude(self) -> int:
        """The most cycles from taking B to taking the next A."""
        return longest(self.program, self.unit, "motion", "gradient")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        fmt = config.scalar
        scalar = scalar_layout(fmt)
        m.submodules.unit = unit = self.unit

        # A signal for each field, not one wide word: simulators copy a word whole for every field of it that is written.
        fields = {name: Signal(shape, name=name) for name, shape in self.status.shape().members.items()}
        status = SimpleNamespace(**fields)
        m.d.comb += [self.status[name].eq(field) for name, field in fields.items()]
        kept = Signal(scalar, reset_less=True)  # ||dtheta|| + eps, then keep * S
        cap, before = Signal(scalar, reset_less=True), Signal(scalar, reset_less=True)
        scale = Signal(scalar, reset_less=True)  # the step size that B goes with
        decided, grows = Signal(), Signal()  # there has been one alpha; there have been two, so that the next one has a cap

        first = Signal(init=1)
        seen = Signal()
        asks, offers, levels = Signal(), Signal(), Signal()  # an energy is awaited; a step is offered; y goes to the root
        ahead = Signal()  # from taking B until taking the next A

        # Exponents of the roots when nothing was shifted; see sqrt.py.
        base = unit.radicand_bits // 2 - fmt.mantissa_bits
        fractions = config.energy_fractions
        literals = {
            "one": constant(fmt.one, fmt),
            "step_grid": unit.literal(unit.step_exponent),
            "root_gradient": unit.literal(base - fractions["A"]),
            "root_direction" if config.intended else "root_weight": unit.literal(base - fractions["B"]),
        }
        exponent = base - fractions["B"]
        lowest, highest = fmt.exponents
        ahead_may_leave = config.intended or exponent + 1 > highest or exponent - unit.root.pairs < lowest

        radicand: Value = self.i.payload
        level = Signal(unit.operand)
        if config.growth:
            # The root of y: its mantissa, doubled if its exponent is odd, shifted up in the radicand by an even number of bits.
            room = unit.radicand_bits - fmt.mantissa_bits - 1
            room -= room % 2
            m.d.comb += level.e.eq((unit.y.e >> 1) + base - room // 2)
            radicand = Mux(levels, Mux(unit.y.e[0], unit.y.m << 1, unit.y.m) << room, radicand)

        operands = literals | {name: getattr(self.constants, name) for name in CONSTANTS}
        operands |= {name: getattr(status, name) for name in ("norm_motion", "curvature", "ema", "alpha")}
        operands |= {"kept": kept, "cap": cap, "before": before, "level": level, "zero": unit.literal(0), "scale": scale}
        releases = self.control.on_still == OnStill.RELEASE
        stands = ~status.norm_motion.m[-1] if config.intended else status.still  # there is no motion to divide by
        floors = stands & (releases | (self.control.on_still == OnStill.FLOOR))
        holds = first | (stands & (self.control.on_still == OnStill.HOLD))
        conditions = {
            "off": ~self.control.enabled,
            "vanishes": ~status.norm_motion.m[-1],
            "keeps": floors | holds,
            "holds": holds,
            "releases": releases,
            "begins": self.control.ema_first & ~seen,
            "instant": self.control.source == Source.INSTANT,
            "average": self.control.source == Source.EMA,
            "grows": grows,
        }
        program = self.program
        used = {do.x for do in program}
        operands = {name: value for name, value in operands.items() if name in used}
        settled = {name: Signal(name=name) for name in conditions}
        m.d.sync += [settled[name].eq(condition) for name, condition in conditions.items()]
        settled |= {"taken": ~asks, "answered": ~offers, "rooted": ~levels}
        does = sequence(m, unit, program, operands=operands, conditions=settled)
        m.d.comb += [
            unit.radicand.payload.eq(radicand),
            unit.radicand.valid.eq((self.i.valid & asks) | levels),  # the root is idle then
            self.i.ready.eq(asks),
            self.o.payload.eq(status.step_size),
            self.o.valid.eq(offers),
            status.step_size.eq(unit.step),
        ]
        with m.If(unit.began):
            m.d.sync += [asks.eq(does["gradient"] | does["motion"]), offers.eq(does["respond"])]
        with m.If(asks & self.i.valid):
            m.d.sync += [asks.eq(0), ahead.eq(does["motion"])]
        with m.If(offers & self.o.ready):
            m.d.sync += offers.eq(0)
        if config.growth:
            m.d.sync += levels.eq(unit.began & does["growth_level"])
            with m.If(does["alpha"]):
                m.d.sync += [before.eq(status.alpha), decided.eq(1), grows.eq(decided)]
        for name, target in (fields | {"kept": kept, "cap": cap}).items():
            if name in does:
                with m.If(does[name]):
                    m.d.sync += target.eq(unit.y)
        takes_b = does["motion"] & asks & self.i.valid
        if config.intended:
            loads = Signal(name="loads_scale")  # from a register, for the sake of the clock
            m.d.sync += loads.eq(does["alpha"] if config.delay else takes_b)
            self._scale(m, scale, first, loads)
        if config.asks_moved:
            with m.If(takes_b):
                m.d.sync += status.still.eq(~self.moved)
        else:
            with m.If(does["norm_motion"]):
                m.d.sync += status.still.eq(~unit.y.m[-1])
        with m.If(does["curvature"] & ~floors):
            m.d.sync += seen.eq(1)
        with m.If(does["respond"]):
            m.d.sync += first.eq(0)

        cleared = Signal()
        m.d.sync += cleared.eq(self.clear)
        # Still steps are counted bit by bit, the lowest first, while the step is decided: there is time, and it costs no adders.
        # One register counts all of them up, the other one those down that are left until learning is dead.
        turns = Signal()
        carry, borrow, none = (Signal(name=name, reset_less=True) for name in ("carry", "borrow", "none"))
        turned = Signal(COUNTER_BITS + 1)  # one-hot: A came, and then the bit that is counted
        left = Signal(COUNTER_BITS, init=config.dead_after, reset_less=True)
        next_left = left[0] ^ borrow
        comes, reload = Signal(), Signal(init=1)
        m.d.comb += comes.eq(does["gradient"] & asks & self.i.valid)
        m.d.sync += [turned.eq(Cat(comes, turned)), reload.eq(self.clear | (comes & ~status.still))]
        with m.If(turned[0]):
            m.d.sync += [turns.eq(1), carry.eq(status.still), borrow.eq(status.still), none.eq(1)]
        with m.Elif(turns):
            m.d.sync += [
                status.still_steps.eq(Cat(status.still_steps[1:], status.still_steps[0] ^ carry)),
                carry.eq(carry & status.still_steps[0]),
                left.eq(Cat(left[1:], next_left)),
                borrow.eq(borrow & ~left[0]),
                none.eq(none & ~next_left),
                turns.eq(~turned[-1]),
            ]
        ended = Signal()
        m.d.sync += [ended.eq(turned[-1]), status.learning_dead.eq(status.learning_dead | (ended & none))]
        with m.If(reload):
            m.d.sync += left.eq(left.init)
        # A flag rises in the step that overflows or underflows. What is computed ahead, from taking B until taking the next A,
        # belongs to the next step: what it raises waits for that.
        for kind, raised in (("overflow", unit.overflow), ("underflow", unit.underflow)):
            flag, early = fields[f"scalar_{kind}"], Signal(name=f"early_{kind}")
            if config.growth or ahead_may_leave:
                m.d.sync += early.eq(ahead & (early | raised))
            with m.If(~ahead):
                m.d.sync += flag.eq(flag | early | raised)
        m.d.sync += status.step_overflow.eq(status.step_overflow | unit.step_overflow)
        with m.If(cleared):
            m.d.sync += [
                status.still_steps.eq(0),
                status.learning_dead.eq(0),
                status.scalar_overflow.eq(0),
                status.scalar_underflow.eq(0),
                status.step_overflow.eq(0),
            ]
        return m

    def _scale(self, m: Module, scale: Any, first: Value, loads: Value) -> None:
        """Make a scalar of the step size that is applied as ``loads`` comes, by shifting it up a bit a cycle; exact.

        It takes fewer cycles than the root of B, which is the first thing that follows: a step size has no more bits than a
        mantissa, and B is taken no earlier. With ``delay`` the unit still holds the step size of the step before, or nothing in
        the first one.
        """
        config, bits = self.config, self.config.mantissa_bits
        step: Value = self.unit.step
        if config.delay:
            step = Mux(first, config.initial_step, step)
        above = bits - config.step.width
        with m.If(loads):
            m.d.sync += [scale.m.eq(step << above), scale.e.eq(-config.step.fraction_bits - above)]
        with m.Elif(~scale.m[-1]):
            m.d.sync += [scale.m.eq(scale.m << 1), scale.e.eq(scale.e - 1)]
