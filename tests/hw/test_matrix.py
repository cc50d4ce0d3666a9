"""Lanes, formats, sizes, precision and laws are a matter of configuration: thirty-five units, each for a corner, no line of code.

Each is exported, linted, and simulated against the golden model; some are synthesised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_export import lint, needs_yosys

import kappa_rtl.hw.synth.synthesis as synthesis
import kappa_rtl.sim.cosim as cosim
from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.export import export
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare

MARGIN: dict[str, Any] = {"law": "stability_margin", "eta": 0.1}
INVERSE: dict[str, Any] = {"law": "inverse_curvature", "eta": 0.1}
COARSE = {"eps": "1/1024", "exponent_bits": 7}
"""Few bits of exponent, which hold no eps of 1e-12."""
MODES = {"elements": 20, "lanes": 4}
LAW = {"elements": 11, "lanes": 3}


class Unit(NamedTuple):
    """A corner, and the configuration that stands for it."""

    corner: str
    table: dict[str, Any]
    streaming: bool = False
    steps: int = 6
    synthesised: bool = False
    stalls: Stalls | None = None


def formats(gradient: str, weight: str, update: str) -> dict[str, str]:
    return {"gradient": gradient, "weight": weight, "update": update}


UNITS = (
    # Widths
    Unit(
        "everything smallest",
        MARGIN | COARSE | {"elements": 1, "lanes": 1, "mantissa_bits": 8, "step_bits": 2} | formats("SQ2.2", "SQ1.3", "SQ1.3"),
        synthesised=True,
    ),
    Unit(
        "4 bits in 32 lanes",
        INVERSE | COARSE | {"elements": 100, "lanes": 32, "mantissa_bits": 9} | formats("SQ2.2", "SQ2.2", "SQ1.3"),
    ),
    Unit(
        "bytes", MARGIN | {"elements": 64, "lanes": 8, "mantissa_bits": 16} | formats("SQ3.5", "SQ2.6", "SQ1.7"), synthesised=True
    ),
    Unit("12 bits: no width that memory has", MARGIN | {"elements": 30, "lanes": 5} | formats("SQ4.8", "SQ2.10", "SQ1.11")),
    Unit("the defaults", MARGIN | {"elements": 640, "lanes": 8}),
    Unit("24 bits", INVERSE | {"elements": 24, "lanes": 3, "mantissa_bits": 32} | formats("SQ4.20", "SQ2.22", "SQ1.23")),
    Unit("32 bits in 32 lanes", MARGIN | {"elements": 70, "lanes": 32} | formats("SQ6.26", "SQ2.30", "SQ1.31"), steps=4),
    Unit("a wide gradient, narrow weights", MARGIN | {"elements": 9, "lanes": 4} | formats("SQ8.24", "SQ2.4", "SQ1.6")),
    Unit("a narrow gradient, wide weights", MARGIN | {"elements": 9, "lanes": 4} | formats("SQ3.2", "SQ2.30", "SQ1.31")),
    Unit(
        "products that need no rounding",
        MARGIN | {"elements": 8, "lanes": 2, "step_bits": 6} | formats("SQ4.4", "SQ2.14", "SQ1.17"),
    ),
    Unit("binary points beyond the words", INVERSE | {"elements": 6, "lanes": 2} | formats("SQ12.-4", "SQ-2.14", "SQ-3.16")),
    # Lanes and sizes
    Unit("one element of one", MARGIN | {"elements": 1, "lanes": 1}, synthesised=True),
    Unit("one element of 32 lanes", MARGIN | {"elements": 1, "lanes": 32}, steps=4),
    Unit("as many elements as lanes", INVERSE | {"elements": 16, "lanes": 16}),
    Unit("one element more than lanes", INVERSE | {"elements": 17, "lanes": 16}),
    Unit("lanes that are no power of two", MARGIN | {"elements": 50, "lanes": 7}, stalls=Stalls(60, 60, 3)),
    Unit("a memory of 513 words: one more than a block has", MARGIN | {"elements": 1025, "lanes": 2}, steps=3),
    Unit("2**16 elements", MARGIN | {"elements": 1 << 16, "lanes": 16}, steps=2),
    Unit("2**20 elements", MARGIN | {"elements": 1 << 20, "lanes": 32}, steps=2),
    Unit("2**20 - 1 elements, streaming", INVERSE | {"elements": (1 << 20) - 1, "lanes": 32}, streaming=True, steps=2),
    # Precision
    Unit("M = 8", MARGIN | COARSE | {"elements": 12, "lanes": 4, "mantissa_bits": 8}, synthesised=True),
    Unit("M = 32", INVERSE | {"elements": 12, "lanes": 4, "mantissa_bits": 32, "exponent_bits": 12}),
    Unit("a step of 24 bits", MARGIN | {"elements": 12, "lanes": 4, "step_bits": 24, "eta_max": 1}),
    # Roundings and overflows
    Unit(
        "to nearest, ties up; symmetric rails",
        MARGIN | MODES | formats("SQ2.6", "SQ1.5,nearest_up,saturate_symmetric", "SQ1.6,nearest_up,saturate_symmetric"),
    ),
    Unit("ties down; wrap", INVERSE | MODES | formats("SQ2.6", "SQ1.5,nearest_down,wrap", "SQ0.7,nearest_down,wrap")),
    Unit("ties to zero and away; zero", MARGIN | MODES | formats("SQ2.6", "SQ1.5,nearest_zero,zero", "SQ0.7,nearest_away,zero")),
    Unit(
        "HLS: truncate and wrap",
        MARGIN | MODES | formats("ap_fixed<8,2>", "ap_fixed<10,2,AP_TRN_ZERO,AP_SAT>", "ap_fixed<9,1>"),
        streaming=True,
    ),
    # Laws and modes
    Unit(
        "hold, and the average from the first C",
        INVERSE | LAW | {"on_still": "hold", "ema_start": "first", "rho": "1/3"} | formats("SQ2.6", "SQ1.3", "SQ1.5"),
        steps=10,
    ),
    Unit(
        "divide, streaming, under backpressure",
        MARGIN | LAW | {"on_still": "divide", "dead_after": 2} | formats("SQ2.6", "SQ1.3", "SQ1.5"),
        streaming=True,
        steps=10,
        stalls=Stalls(90, 120, 5),
    ),
    Unit(
        "floor",
        MARGIN | LAW | {"on_still": "floor", "dead_after": 2} | formats("SQ2.6", "SQ1.3", "SQ1.5"),
        steps=10,
    ),
    Unit(
        "a direction of its own, four random bits",
        MARGIN
        | {"elements": 9, "lanes": 4, "direction": "SQ5.3", "random_bits": 4, "motion": "applied"}
        | formats("SQ2.6", "SQ1.6", "SQ1.6,stochastic"),
        streaming=True,
        steps=8,
    ),
    Unit(
        "an intended motion, its direction wider than the gradient",
        MARGIN
        | {"elements": 9, "lanes": 4, "motion": "intended", "direction": "SQ5.11", "residual_bits": 4}
        | formats("SQ2.6", "SQ1.6", "SQ1.6"),
        streaming=True,
        steps=8,
        stalls=Stalls(90, 120, 5),
    ),
    Unit("a projection", INVERSE | LAW | {"source": "projection"} | formats("SQ2.6", "SQ1.3", "SQ1.5"), steps=10),
    Unit("a projection in one pass", MARGIN | {"elements": 50, "lanes": 8, "source": "projection", "delay": 1}, steps=8),
    Unit(
        "a law of one's own, reported only",
        LAW | {"eta": "1/3", "num": "5/7", "bias": 0, "gain": 2, "source": "instant", "alpha_min": "1/9", "enabled": False},
    ),
)

LARGE = {"elements": 4096, "lanes": 16}
"""From these on Verilator is the faster one, compilation included."""

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.corner)

pytestmark = pytest.mark.slow


def test_the_matrix_covers_what_it_says() -> None:
    configs = [ThrottleConfig.from_table(unit.table) for unit in UNITS]
    widths = {fmt.width for config in configs for fmt in (config.grids.gradient, config.grids.weight, config.grids.update)}
    assert (len(UNITS), len({unit.corner for unit in UNITS})) == (35, 35)
    for found, ends in (
        (widths, (4, 32)),
        ({config.lanes for config in configs}, (1, 32)),
        ({config.elements for config in configs}, (1, 1 << 20)),
        ({config.mantissa_bits for config in configs}, (8, 32)),
    ):
        assert (min(found), max(found)) == ends
    modes = {mode for config in configs for fmt in config.grids[1:3] for mode in (str(fmt.rounding), str(fmt.overflow))}
    assert modes >= {"nearest_even", "nearest_up", "nearest_down", "nearest_zero", "nearest_away", "floor", "toward_zero"}
    assert modes >= {"saturate", "saturate_symmetric", "wrap", "zero"}
    assert {str(config.on_still) for config in configs} == {"release", "floor", "hold", "divide"}


@pytest.mark.icarus
@every_unit
def test_unit(unit: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verilator has nothing to warn of, and every step is the golden unit's to the bit: loud, faint, the same again, none."""
    config = ThrottleConfig.from_table(unit.table)
    verilog, _ = export(config, streaming=unit.streaming)
    assert lint(verilog, tmp_path) == ""

    # A few steps end before optimised code was compiled.
    monkeypatch.setattr(cosim, "OPTIMISATION", "-O0")
    rng = np.random.default_rng(7)
    g, w = config.grids.gradient, config.grids.weight
    theta = rng.integers(*w.rails, config.elements, endpoint=True)
    golden = Throttle(config, theta, codes=True)
    simulator = "verilator" if any(getattr(config, name) >= most for name, most in LARGE.items()) else "icarus"
    options: dict[str, Any] = {"streaming": unit.streaming, "stalls": unit.stalls, "folder": tmp_path / "run"}
    loud = rng.integers(*g.rails, config.elements, endpoint=True)
    faint = rng.integers(-1, 1, config.elements, endpoint=True)
    gradients = [loud, loud // 2, faint, faint, np.zeros_like(loud), faint]
    with RtlThrottle(config, theta, codes=True, simulator=simulator, verilog=verilog, **options) as rtl:
        for step in range(unit.steps):
            gradient = gradients[step % len(gradients)]
            direction = None
            if config.direction or (unit.streaming and step % 2 and not Source(config.source).is_projection):
                direction = loud[::-1].clip(*config.grids.direction.rails)
            _, difference = compare(golden.step(gradient, direction, codes=True), rtl.step(gradient, direction, codes=True))
            assert difference is None, f"{unit.corner}: {difference}"


@needs_yosys
@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.synthesised], ids=lambda unit: unit.corner)
def test_synthesis(unit: Unit) -> None:
    """Every cell is the target's own."""
    config = ThrottleConfig.from_table(unit.table)
    cells = synthesis.synthesise(export(config, streaming=unit.streaming)[0], "throttle", primitives=True)
    assert cells.size > 300 and cells.dsp >= 2 * config.lanes
    assert not any(name.startswith("$") and name != "$scopeinfo" for name in cells.by_type), "unmapped cells"
