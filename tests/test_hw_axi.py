# ruff: noqa: E501  a fault a row reads best
"""The unit on AXI, on its exported Verilog, with the masters of cocotbext-axi."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.sim.bench import Bank, simulate
from kappa_rtl.sim.runner import SimulationError
from mutants import Mutant, generator
from simulators import EFFORT

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
DELAYED = UNITS["l3"] | {"delay": 1, "watchdog": ["learning_dead"], "update": "SQ1.7,stochastic", "seed": 7}


@pytest.mark.parametrize("unit", ["l3", "l4"])
def test_axi(unit: str) -> None:
    simulate("axi", {unit: UNITS[unit]}, simulator="verilator")


@pytest.mark.icarus
def test_axi_icarus() -> None:
    """With fewer units, laws and steps."""
    simulate("axi", {"l3": UNITS["l3"]}, simulator="icarus", effort=EFFORT["icarus"])


@pytest.mark.slow
def test_watchdog_and_one_pass() -> None:
    """Without the tests that hold a step up between its passes."""
    units = {"watched": WATCHED, "shard": SHARD, "delayed": DELAYED}
    simulate("axi", units, simulator="verilator", only="register|under_every_pace|watchdog|driver|promised")


@pytest.mark.slow
def test_axi_long() -> None:
    simulate("axi", UNITS | REAL, simulator="verilator", seed=2, effort=2)


FAULTS = [
    Mutant("axi.py", "acts.eq(has_address & has_data & ~self.s_axi_bvalid & ~acts)", "acts.eq(has_address & has_data & ~acts)", "a write does not wait for the answer before it"),
    Mutant("axi.py", "acts.eq(has_address & has_data & ~self.s_axi_bvalid & ~acts)", "acts.eq(has_data & ~self.s_axi_bvalid & ~acts)", "a write does not wait for its address"),
    Mutant("axi.py", "acts.eq(has_address & settled & ~self.s_axi_rvalid)", "acts.eq(has_address & settled)", "a read does not wait for the answer before it"),
    Mutant("axi.py", "settled.eq(has_address & ~acts)", "settled.eq(1)", "a read does not wait for its word"),
    Mutant("axi.py", "self.s_axi_wready.eq(~has_data)", "self.s_axi_wready.eq(~has_data & self.s_axi_wvalid)", "ready follows valid"),
    Mutant("axi.py", "bits.eq((bits & ~strobed) | (new & strobed))", "bits.eq(new)", "strobes do not matter"),
    Mutant("axi.py", "bits.eq(bits & ~(new & strobed))", "bits.eq(bits & ~new)", "strobes of events do not matter"),
    Mutant("axi.py", "raised, register.name)[part.name]):", "raised, register.name)[part.name] & ~selects[register.name, 0]):", "an event is lost while it is cleared"),
    Mutant("axi.py", "Response.SLVERR.value", "Response.OKAY.value", "a refused write answers okay"),
    Mutant("axi.py", "Mux(found, Response.OKAY.value, Response.DECERR.value)", "Response.OKAY.value", "a read of nothing answers okay"),
    Mutant("axi.py", "signed(f.width) if f.signed else unsigned(f.width)", "unsigned(f.width)", "exponents are not sign-extended"),
    Mutant("axi.py", "acts.eq(clear & ~busy)", "acts.eq(clear)", "a clear acts in the middle of a step"),
    Mutant("axi.py", 'ends if name == "eps" else ~busy', "~busy", "eps changes after it was used"),
    Mutant("axi.py", 'ends if name == "eps" else ~busy', 'ends if name == "eps" else 1', "constants change during a step"),
    Mutant("axi.py", 'ends if name == "on_still" else ~busy', 'ends if name == "on_still" else 1', "modes change during a step"),
    Mutant("axi.py", 'ends if name == "on_still" else ~busy', "~busy", "on_still changes after it was used"),
    Mutant("axi.py", "(file.stored.control.run & ~busy)", "file.stored.control.run", "a gradient is taken before the step ended"),
    Mutant("axi.py", "(file.stored.control.run & ~busy)", "~busy", "a stopped unit runs"),
    Mutant("axi.py", 'taken & (beats["last"] ^ last)', 'taken & beats["last"] & ~last', "a missing TLAST is not seen"),
    Mutant("axi.py", "if lane >= config.tail else", "if lane > config.tail else", "TKEEP keeps an element beyond N"),
    Mutant("axi.py", "raised[name].eq(ends & found[name])", "raised[name].eq(found[name])", "a flag raises its event all the time"),
    Mutant("axi.py", "with m.If(ends):\n                m.d.sync += held[name]", "with m.If(1):\n                m.d.sync += held[name]", "registers change during a step"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", FAULTS, ids=lambda mutant: mutant.what.replace(" ", "_"))
def test_every_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    """The bench is worth what these say: single-point faults of the wrapper."""
    name = f"axi_mutant_{FAULTS.index(mutant)}"
    faulty = generator(mutant, tmp_path / name)
    component = importlib.import_module(f"{name}.axi").AxiThrottle(ThrottleConfig.from_table(UNITS["l3"]))
    with pytest.raises(SimulationError, match=r"[1-9]\d* of \d+ tests failed"):
        simulate("axi", {"l3": UNITS["l3"]}, simulator="verilator", verilog=faulty.to_verilog(Bank({"l3": component}), "axi"))
