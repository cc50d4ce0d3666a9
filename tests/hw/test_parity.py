"""Parity of the memories on chip: nothing else changes, and every bit that flips in them is told of."""

from __future__ import annotations

from typing import Any

import pytest
from test_hw_engine import UNITS

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from kappa_rtl.sim.cosim import Stalls
from kappa_rtl.sim.stress.faults import Bit, Campaign, Upset
from kappa_rtl.sim.testbench.bank import simulate
from support.lockstep import lockstep
from support.simulators import both_languages
from support.strategies import exactly

CONFIG = ThrottleConfig.stability_margin(elements=11, lanes=3, eta=0.1, parity=True)


@pytest.mark.icarus
@pytest.mark.parametrize(
    "changes",
    [
        {"residual_bits": 4, "update": "SQ1.15,stochastic"},
        pytest.param({}, marks=[pytest.mark.slow, pytest.mark.ci]),
        pytest.param({"delay": 1, "residual_bits": 3}, marks=[pytest.mark.slow, pytest.mark.ci]),
    ],
)
@both_languages
def test_the_unit_is_the_same(icarus: str, changes: dict[str, Any]) -> None:
    """And raises no false alarm, whatever its memory holds before the first step."""
    lockstep(CONFIG.replace(**changes), 25, simulator=icarus, stalls=Stalls(40, 90, 2))


WORDS = "reg [WIDTH-1:0] words [0:DEPTH-1];"


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("changes", [{}, {"delay": 1}, {"delay": 1, "residual_bits": 3}])
@both_languages
def test_nothing_is_checked_before_it_was_written(icarus: str, changes: dict[str, Any], seed: int) -> None:
    """Memories hold anything at first, and beats wait long in every stage."""
    config = CONFIG.replace(elements=7, **changes)
    text, _ = export(config)
    assert text.count(WORDS) == 1
    anything = "integer each; initial for (each = 0; each < DEPTH; each = each + 1) words[each] = {8{$random}};"
    lockstep(config, 2, simulator=icarus, stalls=Stalls(220, 250, seed), verilog=text.replace(WORDS, WORDS + anything))


@pytest.mark.slow
def test_the_engine_is_the_same() -> None:
    simulate("engine", {"all": UNITS["all"] | {"parity": True}}, simulator="verilator")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 1])
def test_every_flip_is_told_of(delay: int) -> None:
    """In the words of the gradients and the residuals, the parity bits among them."""
    config = CONFIG.replace(elements=40, lanes=2, residual_bits=4, delay=delay)
    with Campaign(config, seed=1) as campaign:
        # The first two are on their way out of the memory when the step is decided, and then written anew.
        words = [bit for bit in campaign.bits if bit.word >= 2]
        assert {bit.path.split("/")[0] for bit in words} == {"memory", "residuals"}
        middle = campaign.cycles[1][2] // 2  # the step is being decided: all that is stored is read again
        for bit in words[:: len(words) // 60]:
            outcome = campaign.strike(Upset(0, bit, 2, middle, 1))
            assert "memory_fault" in outcome.alarms, bit
        elsewhere = Bit("core/update/new0", -1, 5)
        assert "memory_fault" not in campaign.strike(Upset(0, elsewhere, 2, middle, 1)).alarms


def test_what_has_no_memory_has_no_parity() -> None:
    message = "parity must be false for the streaming variant, which has no memory, not True"
    with pytest.raises(ValueError, match=exactly(message)):
        export(CONFIG, streaming=True)


def test_it_is_a_field_of_the_status() -> None:
    _, manifest = export(CONFIG, bus="axi")
    plain = export(CONFIG.replace(parity=False), bus="axi")[1]
    found = [
        {f["name"]: f["lsb"] for r in m["register_map"] if r["name"] == "status" for f in r["fields"]} for m in (manifest, plain)
    ]
    assert found[0]["memory_fault"] == 11
    assert "memory_fault" not in found[1]
