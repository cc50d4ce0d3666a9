"""A processor, its cache and its DMA, none of them written here, train digits through the unit; and what breaks that is seen."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support import ROOT

EXAMPLES = ROOT / "examples"
GCC = "riscv64-unknown-elf-gcc"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.skipif(
        shutil.which(GCC) is None, reason=f"needs a RISC-V compiler: {GCC} on PATH (Debian: gcc-riscv64-unknown-elf)"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("pythondata_cpu_vexriscv") is None,
        reason="pythondata-cpu-vexriscv is not installed: pip install '.[test]' in a checkout",
    ),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's own script."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "soc"))
    for name in ("run", "compare"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("run")


def changed(source: Path, target: Path, old: str, new: str, count: int) -> Path:
    """A copy of a source with some text replaced, which is there so many times."""
    text = source.read_text()
    assert text.count(old) == count
    target.write_text(text.replace(old, new))
    return target


def test_trains_digits(run: Any, tmp_path: Path) -> None:
    """Every step is golden's; and firmware that does not flush the cache reads old weights beside right registers."""
    run.build_system(tmp_path)
    run.build_firmware(tmp_path)
    told = run.compare(run.simulate(tmp_path), tmp_path)
    assert {"1 of 32 trained images right", "31 of 32 trained images right", "23 of 32 unseen images right"} < set(told)
    assert "8 steps: every register and all 650 weights equal the golden model's, bit for bit" in told

    source = changed(EXAMPLES / "soc" / "firmware.c", tmp_path / "firmware.c", "flush_cpu_dcache();", "", count=1)
    run.build_firmware(tmp_path, source, steps=1)
    with pytest.raises(run.Difference, match=r"step 1: \d+ of 650 weights differ"):
        run.compare(run.simulate(tmp_path), tmp_path, steps=1)


def test_notices_reversed_bytes(run: Any, tmp_path: Path) -> None:
    """The DMA's own choice of the order of bytes."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    system = tmp_path / "examples" / "soc" / "system.py"
    changed(system, system, ', endianness="big"', "", count=2)
    run.build_system(tmp_path, system)
    run.build_firmware(tmp_path, steps=1)
    with pytest.raises(run.Difference, match="step 1: A must be"):
        run.compare(run.simulate(tmp_path), tmp_path, steps=1)


def test_says_what_is_missing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="no riscv64-unknown-elf-gcc on PATH"):
        run.main(str(tmp_path / "soc"))
    assert not (tmp_path / "soc").exists()
