"""The unit with its weights on chip, on its exported Verilog."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_export import lint
from test_hw_throttle import SMALL

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from kappa_rtl.hw.units.engine import ThrottleEngine
from kappa_rtl.scripts.export import command
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, both_languages, refuses

UNITS = {
    "one": SMALL | {"elements": 1, "lanes": 1},
    "l3": SMALL | {"elements": 11, "lanes": 3, "every_rail": True},
    "residual": SMALL | {"elements": 27, "lanes": 2, "residual_bits": 3, "motion": "applied"},
    "all": SMALL
    | {
        "elements": 11,
        "lanes": 4,
        "update": "SQ1.7,stochastic,saturate",
        "residual_bits": 2,
        "every_rail": True,
        "motion": "applied",
    },
}


@pytest.mark.icarus
@both_languages
def test_engine(icarus: str) -> None:
    simulate("engine", {"all": UNITS["all"]}, simulator=icarus, effort=EFFORT["icarus"], only="a_word_is_read")


@pytest.mark.slow
def test_engine_long() -> None:
    simulate("engine", UNITS, simulator="verilator")


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_engine_icarus(icarus: str) -> None:
    simulate("engine", {name: UNITS[name] for name in ("one", "all")}, simulator=icarus, effort=EFFORT["icarus"])


def test_it_has_no_pass_for_a_step_size_known_before() -> None:
    config = ThrottleConfig(elements=3, eta=0.1, delay=1)
    refuses(lambda: ThrottleEngine(config), "delay must be 0 with the weights on chip, not 1")


def test_export(tmp_path: Path) -> None:
    """The whole command; the manifest tells what its ports are and how long a step takes."""
    (tmp_path / "throttle.toml").write_text("[throttle]\nelements = 20\neta = 0.1\nlanes = 4\n")
    told = ["--config", str(tmp_path / "throttle.toml"), "-o", str(tmp_path / "engine.v"), "--variant", "engine"]
    done = CliRunner().invoke(command, told)
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "engine.json").read_text())
    assert manifest["variant"] == "engine"
    assert {"s_axis_load_tdata", "s_axis_gradient_tdata", "s_axis_read_tready", "m_axis_stored_tdata"} <= {
        p["name"] for p in manifest["ports"]
    }
    assert manifest["latency"]["step_at_most"] == 2 * 5 + manifest["latency"]["beyond_the_beats_at_most"]
    refused = CliRunner().invoke(command, [*told, "--bus", "axi"])
    assert refused.exit_code == 1 and "the engine variant has no bus, not 'axi'" in refused.output


def test_no_such_variant() -> None:
    with pytest.raises(ValueError, match="variant must be one of memory, streaming, engine, not 'queue'"):
        export(ThrottleConfig(elements=3, eta=0.1), variant="queue")


def test_verilator_finds_nothing(tmp_path: Path) -> None:
    assert lint(export(ThrottleConfig.from_table(UNITS["all"]), variant="engine")[0], tmp_path) == ""
