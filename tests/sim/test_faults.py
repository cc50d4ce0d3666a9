"""The fault campaign: its list of registers, its classes, and a small campaign with upsets whose class is known."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import StepRecord
from kappa_rtl.hw.export import export
from kappa_rtl.scripts.faults import kept
from kappa_rtl.sim.stress.faults import (
    CLASSES,
    HORIZON,
    Campaign,
    Outcome,
    Upset,
    Workload,
    checks,
    groups,
    judge,
    modules,
    table,
    within_reach,
)
from kappa_rtl.sim.upset import Bit

CONFIG = ThrottleConfig.stability_margin(elements=16, lanes=2, eta=0.1)
UPSET = Upset(0, Bit("core/first", -1, 0), step=2, cycle=0, workload=0)


def test_registers_are_found_in_the_text() -> None:
    verilog = export(CONFIG)[0]
    found = modules(verilog)
    assert found["throttle"]["instances"] == {
        "core": "throttle_core",
        "memory": "throttle_cell_memory",
        "moves_gates": "throttle_cell_gate",
    }
    assert found["throttle_cell_memory"]["registers"] == ["fetched", "out", "words"]
    assert found["throttle_cell_multiply"]["registers"] == ["p", "x", "y"]
    generated = [module for name, module in found.items() if not re.fullmatch("throttle_cell_(memory|multiply)", name)]
    # The generator declares a register a line.
    declared = re.findall(r"^  (?:output )?reg (?:\[\d+:0\] )?\w+[;,]?$", verilog, re.MULTILINE)
    assert sum(len(module["registers"]) for module in generated) == len(declared) > 200
    reached = {"throttle"}
    for _ in found:
        reached |= {name for module in reached & set(found) for name in found[module]["instances"].values()}
    assert reached >= set(found), "every module hangs below the top"


def test_all_registers_are_within_reach_and_nothing_else() -> None:
    verilog = export(CONFIG)[0]
    comment = " /* verilator public_flat_rw */"
    reached = within_reach(verilog)
    assert reached.replace(comment, "") == verilog
    assert reached.count(comment) == sum(len(module["registers"]) for module in modules(verilog).values())


def test_groups_take_lanes_together() -> None:
    every = [Bit(f"core/update/multiplier{lane}/g_plain/x", -1, bit) for lane in range(2) for bit in range(4)]
    every += [Bit("memory/g_plain/words", 3, 0), Bit("core/decide/fsm_state", -1, 0), Bit("takes", -1, 0)]
    assert list(dict.fromkeys(groups(every).values())) == [
        "core/update/multiplier: data",
        "memory: words",
        "core/decide: state machine",
        "throttle: control",
    ]


# ------------------------------------------------------------------------------------------------ classes


@pytest.fixture(scope="module")
def golden() -> list[StepRecord]:
    return Workload(CONFIG, 1).records


def struck(golden: list[StepRecord], changes: dict[int, dict[str, Any]]) -> list[StepRecord]:
    """The records with other registers, or another ``theta`` or ``update``, in some steps."""
    records = list(golden)
    for step, changed in changes.items():
        vectors = {name: changed.pop(name) for name in ("theta", "update") if name in changed}
        registers = dataclasses.replace(golden[step].registers, **changed)
        records[step] = dataclasses.replace(golden[step], registers=registers, **vectors)
    return records


def verdict(golden: list[StepRecord], changes: dict[int, dict[str, Any]], hung: bool = False) -> str:
    return judge(UPSET, CONFIG, golden, struck(golden, changes), hung).verdict


def test_the_data_are_quiet_and_throttled(golden: list[StepRecord]) -> None:
    last = golden[-1].registers
    assert last.gradient_saturated == last.update_saturated == last.weight_saturated == last.still_steps == 0
    assert not (last.learning_dead or last.scalar_overflow or last.scalar_underflow)
    assert any(record.registers.alpha != CONFIG.scalar.one for record in golden)


def test_classes(golden: list[StepRecord]) -> None:
    steps = range(UPSET.step, len(golden))
    assert verdict(golden, {}) == "masked"
    assert verdict(golden, {0: {"A": 1}}) == "masked", "what was before the upset is not its doing"
    assert verdict(golden, {}, hung=True) == "hang"
    assert verdict(golden, {3: {"A": golden[3].registers.A ^ 8}}) == "corrected"
    assert verdict(golden, {3: {"A": 1}, 4: {"A": 1}}) == "slight"
    assert verdict(golden, {3: {"A": 1}, 5: {"step_size": golden[5].registers.step_size * 2}}) == "silent"
    assert verdict(golden, {3: {"scalar_overflow": True}}) == "flagged"
    # A counter that is off once is off for good: only the step that made it so differs.
    counted = [golden[k].registers.update_underflow for k in range(len(golden))]
    assert verdict(golden, {k: {"update_underflow": counted[k] + 3} for k in steps}) == "corrected"
    assert verdict(golden, {k: {"update_underflow": counted[k] + CONFIG.elements + 1} for k in steps}) == "flagged"
    assert verdict(golden, {k: {"update_saturated": 1} for k in steps}) == "flagged"


@pytest.mark.parametrize(("ulps", "want"), [(1, "corrected"), (64, "corrected"), (65, "offset"), (20000, "offset")])
def test_an_error_that_a_weight_keeps(golden: list[StepRecord], ulps: int, want: str) -> None:
    """A 256th is 64 ulps of SQ2.14."""
    wrong = np.zeros(CONFIG.elements, np.int64)
    wrong[3] = ulps
    assert verdict(golden, {k: {"theta": golden[k].theta + wrong} for k in range(3, len(golden))}) == want


def test_checks_of_a_host(golden: list[StepRecord]) -> None:
    alpha = golden[4].registers.alpha
    cases = {
        "m too small": ({"alpha": alpha._replace(m=alpha.m >> 1)}, ["bounds", "scalars"]),
        "beyond one": ({"alpha": alpha._replace(e=5)}, ["bounds", "scalars"]),
        "plausible": ({"alpha": alpha._replace(m=alpha.m ^ 1)}, ["scalars"]),
        "an energy": ({"A": golden[4].registers.A + 1000}, ["scalars"]),
        "a counter": ({"update_underflow": 7}, []),
    }
    for what, (changed, want) in cases.items():
        assert judge(UPSET, CONFIG, golden, struck(golden, {4: changed}), False).checks == want, what


ALONG = ({"motion": "intended"}, {"source": "projection"})


@pytest.mark.parametrize("options", [{"delay": 1}, {"law": "trust_ratio"}, *ALONG, *(one | {"delay": 1} for one in ALONG)])
def test_a_host_computes_the_scalars_of_every_unit(options: dict[str, Any]) -> None:
    """Nothing is found where nothing was struck, whatever A and B are of; a struck B is."""
    table = CONFIG.to_table() | {"law": "stability_margin"} | options
    if table["law"] == "trust_ratio":
        del table["chi"]
    config = ThrottleConfig.from_table({name: value for name, value in table.items() if name != "motion" or "motion" in options})
    records = Workload(config, 1).records
    assert checks(config, records) == []
    assert "scalars" in checks(config, struck(records, {4: {"B": records[4].registers.B * 2}}))


# ------------------------------------------------------------------------------------------------ what is kept


def test_an_interrupted_campaign_goes_on(tmp_path: Path) -> None:
    path, head = tmp_path / "out" / "upsets.jsonl", {"seed": 0}
    assert kept(path, head) == []
    outcome = Outcome(UPSET, "masked", [(2, ["A"])], ["learning_dead"], ["bounds"], 0.5, 0.25)
    line = json.dumps(outcome.to_json())
    path.write_text(f"{json.dumps(head)}\n{line}\n{line[:40]}")
    (back,) = kept(path, head)
    assert json.dumps(back.to_json()) == line
    assert path.read_text() == f"{json.dumps(head)}\n{line}\n"
    with pytest.raises(
        ValueError, match=r"upsets\.jsonl must be of this seed, .*, and is of another campaign; take another --out"
    ):
        kept(path, {"seed": 1})
    assert len(path.read_text().splitlines()) == 2, "and nothing is overwritten"


# ------------------------------------------------------------------------------------------------ the campaign


@pytest.mark.slow
@pytest.mark.ci
def test_a_small_campaign() -> None:
    with Campaign(CONFIG, seed=3) as campaign:
        assert sum(bit.word >= 0 for bit in campaign.bits) == 16 * CONFIG.elements
        assert len(set(campaign.bits)) == len(campaign.bits) > 2000
        plan = list(campaign.plan(60))
        assert plan[:20] == list(campaign.plan(20)), "a longer campaign begins with the shorter one"
        outcomes = [campaign.strike(upset) for upset in plan]
        again = [campaign.strike(upset) for upset in plan[:15]]
        assert [one.to_json() for one in again] == [one.to_json() for one in outcomes[:15]]
        rows = table(campaign.bits, outcomes)
        assert rows[-1][:3] == ("all", len(campaign.bits), 60)
        assert all(sum(map(int, row[3:])) == row[2] for row in rows)
        counts = Counter(outcome.verdict for outcome in outcomes)
        assert set(counts) <= set(CLASSES) and counts["masked"] >= 10 and counts["masked"] < 50, counts

        def strike(path: str, bit: int, cycle: int, word: int = -1) -> str:
            return campaign.strike(Upset(0, Bit(path, word, bit), 2, cycle, 1)).verdict

        # The decision takes most of a step, and nothing is in the lanes then.
        end = campaign.cycles[1][2]
        middle = end // 2
        assert strike("core/update/summed0", 7, middle) == "masked"
        # The ring of totals stands as the registers have them: the last two count update_saturated and update_underflow.
        assert strike("core/counters/total5", 2, middle) == "corrected"
        # The ring of totals stands as the registers have them: the last two count update_saturated and update_underflow.
        assert strike("core/counters/total5", 20, middle) == "flagged"
        assert strike("core/counters/total4", 0, middle) == "flagged"
        assert strike("core/decide/scalar_overflow", 0, middle) == "flagged"
        assert strike("memory/g_plain/words", 13, middle, word=3) in ("offset", "silent")
        assert strike("core/takes", 0, 3) == "hang"
        # A new weight stands in its register for one cycle: as many of these cycles as beats are not masked.
        found = [strike("core/update/new0", 12, cycle) for cycle in range(end - 24, end)]
        assert sum(one != "masked" for one in found) == CONFIG.beats, found


def test_the_horizon_is_in_the_workload() -> None:
    assert len(Workload(CONFIG, 0).records) > HORIZON
