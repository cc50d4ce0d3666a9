# ruff: noqa: E501  a fault a row reads best
"""The unit on AXI, on its exported Verilog, with the masters of cocotbext-axi."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import Bank, simulate
from support.mutants import Mutant, generator
from support.simulators import EFFORT

SMALL = {
    **{"law": "stability_margin", "eta": 0.5, "eps": "1/1048576", "dead_after": 3},
    **{"mantissa_bits": 8, "exponent_bits": 6, "step_bits": 9, "gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7"},
}
UNITS = {
    "l3": SMALL | {"elements": 11, "lanes": 3},
    "l1": SMALL | {"elements": 4, "lanes": 1, "gradient": "SQ3.7"},
    # One beat, and that not full; fields of 32 bits, and a mantissa of two words.
    "l4": SMALL | {"elements": 3, "lanes": 4, "gradient": "SQ4.14", "weight": "SQ2.20", "mantissa_bits": 37, "exponent_bits": 9},
}
REAL = {"l8": {"law": "stability_margin", "eta": 0.1, "elements": 100, "lanes": 8, "dead_after": 3}}
WATCHED = UNITS["l3"] | {
    "watchdog": ["gradient_floor", "norm_growth", "learning_dead", "scalar_overflow"],
    "gradient_floor": "0.25",
    **{"every_rail": True, "dead_after": 2},
}
SHARD = UNITS["l3"] | {"watchdog": ["norm_growth", "scalar_overflow"], "population": 11}
DELAYED = UNITS["l3"] | {"delay": 1, "watchdog": ["learning_dead"], "update": "SQ1.7,stochastic", "motion": "applied", "seed": 7}


INTENDED = UNITS["l3"] | {"motion": "intended", "step_bits": 8, "population": 11}
PROJECTION = UNITS["l3"] | {"source": "projection", "step_bits": 8}
CHECKED = UNITS["l3"] | {"frames": "check"}
TABLE = SMALL | {"step_bits": 8, "lanes": 3, "capacity": 19, "entries": 5, "gradient": "SQ1.4"}
TABLE |= {"segments": [{"elements": 5, "scale": 1}, {"elements": 3, "scale": 7}, {"elements": 1}]}
SEGMENTED = {
    "table": TABLE,
    "checked": TABLE | {"frames": "check", "update": "SQ0.6,floor,saturate_symmetric"},
    # Of many beats, with random numbers and residuals.
    "long": TABLE
    | {"lanes": 4, "capacity": 300, "entries": 3, "scale_max": 5, "exponent_bits": 7, "residual_bits": 2}
    | {"segments": [{"elements": 9, "scale": 5}, {"elements": 30}], "update": "SQ1.7,stochastic,saturate"},
    "one": TABLE | {"lanes": 1, "capacity": 3, "entries": 1, "scale_max": 0, "segments": [{"elements": 3}]},
}
LAYOUTS = "another_layout|refused|beside_the_first|after_a_beat|half_a_table|does_not_wait|the_driver_lays_out"
"""The tests that are of segments alone."""


@pytest.mark.parametrize("unit", ["l3", pytest.param("l4", marks=[pytest.mark.slow, pytest.mark.ci])])
def test_axi(unit: str) -> None:
    simulate("axi", {unit: UNITS[unit]}, simulator="verilator")


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.icarus
def test_axi_icarus() -> None:
    """With fewer units, laws and steps."""
    simulate("axi", {"l3": UNITS["l3"]}, simulator="icarus", effort=EFFORT["icarus"])


@pytest.mark.parametrize(
    "simulator",
    [
        pytest.param("verilator", marks=[pytest.mark.slow, pytest.mark.ci]),
        pytest.param("icarus", marks=[pytest.mark.icarus, pytest.mark.slow]),
    ],
)
def test_two_clocks(simulator: str) -> None:
    units = {"l1": UNITS["l1"], "table": SEGMENTED["table"]}
    units = {name: unit | {"bus_clock": True} for name, unit in units.items()}
    simulate("axi_clocks", units, simulator=simulator, effort=EFFORT[simulator])


@pytest.mark.slow
def test_watchdog_and_one_pass() -> None:
    """Without the tests that hold a step up between its passes."""
    units = {"watched": WATCHED, "shard": SHARD, "delayed": DELAYED, "checked": WATCHED | CHECKED}
    units |= {"intended": INTENDED, "projection": PROJECTION}
    units |= {"watched_segments": TABLE | {"watchdog": ["gradient_floor", "norm_growth"], "gradient_floor": "0.25"}}
    simulate(
        "axi", units, simulator="verilator", only="register|under_every_pace|watchdog|driver|promised|frames|by_command|layout"
    )


def test_segments() -> None:
    simulate("axi", {"table": SEGMENTED["table"]}, simulator="verilator", only=LAYOUTS, effort=0)


@pytest.mark.slow
@pytest.mark.ci
def test_every_unit_with_segments() -> None:
    """All tests, those of a unit without segments too."""
    simulate("axi", SEGMENTED, simulator="verilator")


@pytest.mark.slow
@pytest.mark.icarus
def test_segments_icarus() -> None:
    simulate("axi", {"table": SEGMENTED["table"]}, simulator="icarus", only=LAYOUTS, effort=EFFORT["icarus"])


@pytest.mark.slow
def test_axi_long() -> None:
    simulate("axi", UNITS | REAL, simulator="verilator", seed=2, effort=2)


FAULTS = [
    Mutant("bus/file.py", "acts.eq(has_address & has_data & ~self.s_axi_bvalid & ~acts)", "acts.eq(has_address & has_data & ~acts)", "a write does not wait for the answer before it"),
    Mutant("bus/file.py", "acts.eq(has_address & has_data & ~self.s_axi_bvalid & ~acts)", "acts.eq(has_data & ~self.s_axi_bvalid & ~acts)", "a write does not wait for its address"),
    Mutant("bus/file.py", "acts.eq(has_address & settled[-1] & ~self.s_axi_rvalid)", "acts.eq(has_address & settled[-1])", "a read does not wait for the answer before it"),
    Mutant("bus/file.py", "settled.eq(Mux(acts, 0, Cat(has_address, settled)))", "settled.eq(7)", "a read does not wait for its word"),
    Mutant("bus/file.py", "self.s_axi_wready.eq(~has_data)", "self.s_axi_wready.eq(~has_data & self.s_axi_wvalid)", "ready follows valid"),
    Mutant("bus/file.py", "with m.If(strobed[bits_of.start]):", "with m.If(1):", "strobes do not matter"),
    Mutant("bus/file.py", "bits.eq(bits & ~(new & strobed))", "bits.eq(bits & ~new)", "strobes of events do not matter"),
    Mutant("bus/file.py", "raised, register.name)[part.name]):", "raised, register.name)[part.name] & ~selects[register.name, 0]):", "an event is lost while it is cleared"),
    Mutant("bus/file.py", "Response.SLVERR.value", "Response.OKAY.value", "a refused write answers okay"),
    Mutant("bus/file.py", "Mux(found[WORD], Response.OKAY.value, Response.DECERR.value)", "Response.OKAY.value", "a read of nothing answers okay"),
    Mutant("bus/file.py", "beside: Const(1 << WORD, WORD + 1)", "beside: Const(0, WORD + 1)", "a read beside a register is refused"),
    Mutant("bus/file.py", "{*places, *self.registers.neighbours}", "{*places}", "a write beside a register is refused"),
    Mutant("bus/file.py", "strobes_any.eq(mask.any())", "strobes_any.eq(1)", "a write of no byte is refused"),
    Mutant("bus/file.py", "signed(f.width) if f.signed else unsigned(f.width)", "unsigned(f.width)", "exponents are not sign-extended"),
    Mutant("bus/steps.py", "clears.eq(clear & ~busy & ~clears)", "clears.eq(clear & ~clears)", "a clear acts in the middle of a step"),
    Mutant("bus/steps.py", 'ends if name == "eps" else ~busy', "~busy", "eps changes after it was used"),
    Mutant("bus/steps.py", 'ends if name == "eps" else ~busy', 'ends if name == "eps" else 1', "constants change during a step"),
    Mutant("bus/steps.py", 'ends if name == "on_still" else ~busy', 'ends if name == "on_still" else 1', "modes change during a step"),
    Mutant("bus/steps.py", 'ends if name == "on_still" else ~busy', "~busy", "on_still changes after it was used"),
    Mutant("bus/steps.py", "Mux(busy, accepts & ~finished, self.stored.control.run | begins)", "Mux(busy, accepts & ~finished | self.stored.control.run, self.stored.control.run | begins)", "a gradient is taken before the step ended", {"frames": "check"}),
    Mutant("bus/steps.py", "Mux(busy, accepts & ~finished, self.stored.control.run | begins)", "Mux(busy, accepts & ~finished, 1)", "a stopped unit runs"),
    Mutant("bus/frames.py", "taken & (self.i.payload.last ^ last)", "taken & self.i.payload.last & ~last", "a missing TLAST is not seen", {"frames": "check"}),
    Mutant("bus/steps.py", "if lane >= config.tail else", "if lane > config.tail else", "TKEEP keeps an element beyond N"),
    Mutant("bus/steps.py", "raised[name].eq(ends & found[name])", "raised[name].eq(found[name])", "a flag raises its event all the time"),
    Mutant("bus/steps.py", "with m.If(ends):\n                m.d.sync += held[name]", "with m.If(1):\n                m.d.sync += held[name]", "registers change during a step"),
    Mutant("bus/axi.py", "again(steps)", "steps", "a command resets nothing"),
    Mutant("bus/outlet.py", "owing = (owes & ~(moves & ~spares)) | (self.cut & begun)", "owing = owes & ~(moves & ~spares)", "a frame that is cut has no end"),
    Mutant("bus/outlet.py", "ready or not offered, self.o.valid, self.o.ready)", "ready or not offered, self.o.valid & ~self.cut, self.o.ready)", "a reset takes back what is offered"),
    Mutant("bus/frames.py", "m.d.sync += written.eq(whole)", "m.d.sync += written.eq(written + 1)", "a bad frame is not taken back"),
    Mutant("bus/frames.py", "drops.eq((drops | (ends & ~each)) & ~last)", "drops.eq(0)", "the rest of a long frame is a frame"),
    Mutant("bus/frames.py", "& ~each & (last ^ ends))", "& ~each & last & ~ends)", "nobody is told of a long frame"),
    Mutant("bus/frames.py", "with m.If(~drops & (each | (last & ends))):", "with m.If(~drops):", "beats leave before their frame is whole"),
    Mutant("bus/frames.py", "beat.eq(Mux(last | each, 0, beat + 1))", "beat.eq(Mux(ends, 0, beat + 1))", "a short frame leaves its beats to the next one"),
    Mutant("bus/frames.py", "used < self.depth - 2", "used < self.depth - 1", "a beat is taken for which there is no room"),
    Mutant("bus/axi.py", "again(frames)", "frames", "half a frame outlasts a reset"),
    Mutant("bus/file.py", "part.restarts or register.access", "register.access", "a unit that is reset runs on"),
    Mutant("bus/file.py", "register.access is not Access.RW:", "register.access is Access.W1S:", "events outlast a reset"),
    Mutant("bus/steps.py", "core.registers.valid & self.left & ~ends", "core.registers.valid & ~ends", "a step ends before its last weight has left"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", FAULTS, ids=lambda mutant: mutant.what.replace(" ", "_"))
def test_every_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    """The bench is worth what these say: single-point faults of the wrapper."""
    name = f"axi_mutant_{FAULTS.index(mutant)}"
    faulty = generator(mutant, tmp_path / name)
    options = dict(mutant.options)
    component = importlib.import_module(f"{name}.hw.bus.axi").AxiThrottle(ThrottleConfig.from_table(UNITS["l3"]), **options)
    with pytest.raises(SimulationError, match=r"[1-9]\d* of \d+ tests failed"):
        simulate(
            "axi", {"l3": UNITS["l3"] | options}, simulator="verilator", verilog=faulty.to_verilog(Bank({"l3": component}), "axi")
        )


LAYOUT_FAULTS = [
    Mutant("bus/layout.py", "m.d.sync += [entry.eq(self.entry), quotient", "m.d.comb += entry.eq(self.entry)\n                m.d.sync += [quotient", "what the host writes meanwhile is the entry", {"unit": "long"}),
    Mutant("bus/layout.py", "fits = part >= lanes", "fits = part > lanes", "a full beat more makes two"),
    Mutant("bus/layout.py", "+ quotient + rest.any())", "+ quotient)", "a beat that is not full does not count"),
    Mutant("bus/layout.py", "Mux(count == 0, 0, beats)", "beats", "the beats of the table before are counted too"),
    Mutant("bus/layout.py", "self.shut.eq(self.asked | self.partial)", "self.shut.eq(self.asked)", "beats come into half a table"),
    Mutant("bus/layout.py", "begun.eq(begun | self.comes)", "begun.eq(self.comes)", "a table is changed under a run"),
    Mutant("bus/layout.py", "~begun\n                    & (count != config.entries)", "~begun", "a whole table takes one more"),
    Mutant("bus/layout.py", "& (entry.scale <= config.scale_max)", "& ~entry.scale[3:].any()", "a scale is too fine", {"unit": "long"}),
    Mutant("bus/layout.py", "& ~entry.elements[bits:].any()", "& 1", "high bits of the elements are cut off"),
    Mutant("bus/layout.py", "& (total <= config.room)", "& (total <= config.room + 1)", "an element more than there is room for"),
    Mutant("bus/layout.py", "& Mux(used, ~ended, count != 0)", "& (used | (count != 0))", "a segment comes behind an entry that is not in use"),
    Mutant("bus/layout.py", "& Mux(used, ~ended, count != 0)", "& (~used | ~ended)", "a table begins with an entry that is not in use"),
    Mutant("bus/layout.py", "elements.eq(total),", "elements.eq(entry.elements),", "only the last two segments have to fit together"),
    Mutant("bus/layout.py", "self.entries.valid.eq(sound)", "self.entries.valid.eq(1)", "an entry that is refused is in the table all the same"),
    Mutant("bus/layout.py", "self.entries.payload.scale.eq(entry.scale)", "self.entries.payload.scale.eq(0)", "all segments have scale 0"),
    Mutant("bus/layout.py", "self.refused.eq(~sound)", "self.refused.eq(0)", "nobody is told of a refusal"),
    Mutant("bus/steps.py", "last = core.core.update.o.payload.last", "last = core.core.update.o.payload.outside.any()", "the end of a frame is that of a segment"),
    Mutant("bus/steps.py", "keeps = ~core.core.update.o.payload.outside[lane]", "keeps = (~last) if lane >= config.tail else Const(1)", "TKEEP is that of the configuration"),
    Mutant("bus/frames.py", "self.length if self.variable else beat", "self.beats if self.variable else beat", "a frame has the most beats", {"unit": "checked"}),
    Mutant("bus/axi.py", "frames.length.eq(self.steps.beats)", "frames.length.eq(self.config.beats)", "frames are as long as the configuration says"),
    Mutant("bus/axi.py", "port.valid.eq(own & ~shuts)", "port.valid.eq(own)", "a beat enters that its sender still offers"),
    Mutant("bus/axi.py", 'getattr(self, f"{prefix}_tready").eq(ready & ~shuts)', 'getattr(self, f"{prefix}_tready").eq(ready)', "a beat is lost before half a table"),
    Mutant("bus/axi.py", "m.d.comb += steps.comes.eq(Cat(came).any())", "m.d.comb += steps.comes.eq(0)", "beats that wait in a buffer do not count"),
    Mutant("bus/steps.py", "self.comes | self.core.gradient.valid", "self.comes", "beside a beat that is offered an entry is lost", {"unit": "checked"}),
    Mutant("bus/map.py", "config.constants[name], follows)", "config.constants[name])", "a reset keeps the constant of another layout"),
    Mutant("lanes/update.py", "leaves.eq(outside[-1]),", "leaves.eq(outside[-2]),", "TKEEP is that of the beat behind"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", LAYOUT_FAULTS, ids=lambda mutant: mutant.what.replace(" ", "_"))
def test_every_fault_of_a_layout_is_found(mutant: Mutant, tmp_path: Path) -> None:
    unit = mutant.options.get("unit", "table")
    name = f"layout_mutant_{LAYOUT_FAULTS.index(mutant)}"
    faulty = generator(mutant, tmp_path / name)
    table = {key: value for key, value in SEGMENTED[unit].items() if key != "frames"}
    frames = str(SEGMENTED[unit].get("frames", "drop"))
    component = importlib.import_module(f"{name}.hw.bus.axi").AxiThrottle(ThrottleConfig.from_table(table), frames)
    with pytest.raises(SimulationError, match=r"[1-9]\d* of \d+ tests failed"):
        simulate(
            "axi",
            {unit: SEGMENTED[unit]},
            simulator="verilator",
            only=LAYOUTS,
            verilog=faulty.to_verilog(Bank({unit: component}), "axi"),
        )
