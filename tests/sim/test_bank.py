"""What is left of a failing bench for whoever looks for the fault."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from kappa_rtl.hw.export import to_verilog
from kappa_rtl.sim.benches import divider
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import KEEP, Bank, simulate


def faulty() -> str:
    """A divider whose lowest bit is the wrong way round."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = to_verilog(Bank({"m4": divider.component(bits=4)}), "divider")
    wire = ".o_payload(m4_m_axis_o_tdata)"
    assert text.count(wire) == 1
    text = text.replace(wire, ".o_payload(honest)", 1)
    instance = "  divider_m4 m4 ("
    assert text.count(instance) == 1
    return text.replace(instance, f"  wire [5:0] honest;\n  assign m4_m_axis_o_tdata = honest ^ 6'd1;\n{instance}")


@pytest.mark.parametrize(
    "simulator",
    [pytest.param("verilator", marks=[pytest.mark.slow, pytest.mark.ci]), pytest.param("icarus", marks=pytest.mark.icarus)],
)
def test_a_failing_bench_is_kept_with_its_waveform(simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units, verilog = {"m4": {"bits": 4}}, faulty()
    monkeypatch.setenv(KEEP, str(tmp_path))
    with pytest.raises(SimulationError, match="The run again, with its log and waveform: ") as failure:
        simulate("divider", units, simulator=simulator, effort=0, verilog=verilog)
    where = tmp_path / f"divider-{simulator}"
    assert str(failure.value).endswith(str(where))
    waveform = (where / "wave.vcd").read_text(errors="replace")
    assert "$enddefinitions" in waveform and "honest" in waveform and waveform.count("\n#") > 100
    assert "Mismatch" in (where / "simulation.log").read_text()
    assert (where / "divider.v").read_text().count("$dumpvars") == 1


def test_nothing_is_kept_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEEP, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SimulationError) as failure:
        simulate("divider", {"m4": {"bits": 4}}, simulator="verilator", effort=0, verilog=faulty())
    assert "The run again" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []
