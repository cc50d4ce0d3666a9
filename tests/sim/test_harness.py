"""The harness and the job around it where something is wrong: what they refuse, and what they forget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.export import export
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import MOST_BLOCKS, RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare
from kappa_rtl.sim.runner import SimulationError


def test_stalls_are_chances_that_let_a_step_end() -> None:
    for name, value in (("idle", 256), ("stall", -1), ("stall", 251)):
        with pytest.raises(ValueError, match=rf"^{name} must be a chance of 256 from 0 to 250, not {value}$"):
            Stalls(**{name: value})


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built, and not as a fault of the output folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("KAPPA_RTL_CACHE", str(tmp_path / "file" / "cache"))
    done = CliRunner().invoke(main, ["cosim", "--experiment", "synthetic", "--steps", "2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "KAPPA_RTL_CACHE must be a folder that can be written, not" in done.output
    monkeypatch.setenv("KAPPA_RTL_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("KAPPA_RTL_CACHE_LIMIT", "two")
    done = CliRunner().invoke(main, ["cosim", "--experiment", "synthetic", "--steps", "2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "KAPPA_RTL_CACHE_LIMIT must be a whole number of MiB, not 'two'" in done.output


@pytest.mark.slow
@pytest.mark.ci
def test_a_run_is_not_resumed_on_other_hardware(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["cosim", "--experiment", "synthetic", "--steps", "3", "--out", str(out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "other.v").write_text(kept["throttle.v"].decode() + "// other\n")
    refused = CliRunner().invoke(main, [*arguments, "--resume", "--verilog", str(tmp_path / "other.v")])
    assert refused.exit_code == 1 and "verilog must be what" in refused.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


def watched(**changes: Any) -> ThrottleConfig:
    return ThrottleConfig.stability_margin(elements=4, eta=0.1, lanes=2, watchdog=("norm_growth",), **changes)


def test_a_unit_that_takes_no_blocks_hangs_and_says_so() -> None:
    config = watched()
    text, _ = export(config)
    wrapped = text.replace("module throttle (", "module throttle_true (", 1)
    ports = {port["name"]: port for port in export(config)[1]["ports"]}
    declared = "".join(f"  {p['direction']} [{p['width'] - 1}:0] {name};\n" for name, p in ports.items())
    wired = ", ".join(f".{name}({'honest' if name == 's_axis_blocks_tready' else name})" for name in ports)
    wrapped += (
        f"\nmodule throttle({', '.join(ports)});\n{declared}  wire honest;\n  assign s_axis_blocks_tready = 1'b0;\n"
        f"  throttle_true inner({wired});\nendmodule\n"
    )
    with RtlThrottle(config, np.zeros(4), verilog=wrapped) as rtl:
        rtl.watchdog.blocks([1, 2])
        with pytest.raises(SimulationError, match=r"^step 0: the unit did not finish within"):
            rtl.step(np.zeros(4))


@pytest.mark.slow
@pytest.mark.ci
def test_a_restart_forgets_blocks_and_mask() -> None:
    config = watched()
    with RtlThrottle(config, np.zeros(4)) as rtl:
        rtl.watchdog.blocks([1, 1 << 40])
        rtl.watchdog.mask = 0
        rtl.restart(config, np.zeros(4))
        golden = Throttle(config, np.zeros(4))
        for unit in (golden, rtl):
            unit.watchdog.blocks([5, 5])
        assert compare(golden.step(np.zeros(4)), rtl.step(np.zeros(4)))[1] is None
        with pytest.raises(ValueError, match=rf"^blocks must be at most {MOST_BLOCKS} a step, not {MOST_BLOCKS + 1}"):
            rtl.watchdog.blocks([0] * (MOST_BLOCKS + 1))


def test_what_the_rtl_has_no_place_for() -> None:
    config = ThrottleConfig.stability_margin(elements=4, eta=0.1)
    with RtlThrottle(config, np.zeros(4)) as rtl:
        with pytest.raises(ValueError, match=r"^weights must have shape \(4,\), not \(5,\)"):
            rtl.restart(config, np.zeros(5))
        with pytest.raises(ValueError, match=r"^watchdog must name what is watched, of "):
            rtl.watchdog.blocks([1])


def test_the_state_of_the_rtl_is_refused_by_name(tmp_path: Path) -> None:
    config = ThrottleConfig.stability_margin(elements=4, eta=0.1)
    saved = Throttle(config, np.zeros(config.elements)).save(tmp_path / "unit.npz")
    with RtlThrottle(config, np.zeros(config.elements)) as rtl:
        for ask in (rtl.state_dict, lambda: rtl.save(tmp_path / "rtl.npz"), lambda: rtl.load_state_dict({})):
            with pytest.raises(ValueError, match=r"^state must be that of a golden unit, .* no port of the RTL shows P"):
                ask()
        with pytest.raises(ValueError, match=r"unit\.npz: kind must be 'RtlThrottle', not 'Throttle'"):
            rtl.load(saved)
    assert not (tmp_path / "rtl.npz").exists()
