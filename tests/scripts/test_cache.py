"""What is kept between runs: found again by all that it was made from, bounded, shown and cleared by a command."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from kappa_rtl.scripts.cache import command
from kappa_rtl.sim import cache, exports

CONFIG = ThrottleConfig(elements=2, eta=0.5, mantissa_bits=8, gradient="SQ2.4", weight="SQ1.4", update="SQ1.4", eps=0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KAPPA_RTL_CACHE", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def entry(root: Path, name: str, size: int, age: float) -> Path:
    """Something that was used ``age`` seconds ago."""
    path = root / name
    if name.startswith("verilog"):
        path.write_bytes(bytes(size))
    else:
        path.mkdir()
        (path / "built").write_bytes(bytes(size))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_verilog_is_made_once_and_is_what_an_export_gives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, manifest = exports.exported(CONFIG)
    want, about = export(CONFIG)
    assert (text, manifest) == (want, about)
    monkeypatch.setattr(exports, "export", None)  # not called again
    assert exports.exported(CONFIG) == (text, json.loads(json.dumps(manifest)))
    with pytest.raises(TypeError):
        exports.exported(CONFIG, streaming=True)
    with pytest.raises(TypeError):
        exports.exported(CONFIG.replace(on_still="hold"))
    monkeypatch.setattr(exports, "_makers", lambda: ("other code",))
    with pytest.raises(TypeError):
        exports.exported(CONFIG)


def test_a_broken_entry_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(("first", "second"))
    monkeypatch.setattr(exports, "export", lambda *_, **__: (next(texts), {}))
    assert exports.exported(CONFIG)[0] == exports.exported(CONFIG)[0] == "first"
    (kept,) = root.glob("verilog-*")
    kept.write_text("{")
    assert exports.exported(CONFIG)[0] == "second"
    assert json.loads(kept.read_text())["verilog"] == "second"


def test_other_code_has_another_digest(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.v").write_text("wire x;\n")
    before = cache.code_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert cache.code_digest(tmp_path) == before
    (tmp_path / "b.v").write_text("wire y;\n")
    assert cache.code_digest(tmp_path) != before


def test_what_was_used_longest_ago_goes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT, "2")
    third = 1 << 20
    oldest = entry(root, "verilator-a", third, 9e5)
    other = entry(root, "verilog-b.json", third, 8e5)
    running = entry(root, "icarus-c", third, 60)
    (root / "packages").mkdir()
    assert [one.path for one in cache.entries()] == [oldest, other, running]
    assert cache.trim() == third
    assert [one.path for one in cache.entries()] == [other, running]
    monkeypatch.setenv(cache.LIMIT, "0")
    assert cache.trim() == third, "what was asked for within the hour may be running"
    assert [one.path for one in cache.entries()] == [running] and (root / "packages").exists()


def test_asking_for_an_entry_uses_it(root: Path) -> None:
    path = entry(root, "verilator-a", 1, 9e5)
    cache.use(path)
    assert cache.entries()[0].used > time.time() - 60
    cache.use(root / "verilator-nothing")


def test_the_command_shows_and_clears(root: Path) -> None:
    entry(root, "verilator-a", 3 << 20, 0)
    (root / "verilator-a.lock").touch()
    entry(root, "verilog-b.json", 1 << 20, 0)
    shown = CliRunner().invoke(command, [])
    assert shown.exit_code == 0, shown.output
    assert f"{root}: 4.0 MiB of at most 2048.0 MiB" in shown.output
    assert "simulations compiled by Verilator" in shown.output and "Icarus" not in shown.output
    cleared = CliRunner().invoke(command, ["--clear"])
    assert cleared.output == f"removed 4.0 MiB from {root}\n"
    assert list(root.iterdir()) == []


def test_a_bound_that_is_no_number_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT, "2G")
    refused = CliRunner().invoke(command, [])
    assert refused.exit_code == 1
    assert "KAPPA_RTL_CACHE_LIMIT must be a whole number of MiB, not '2G'" in refused.output


def test_a_folder_that_make_cannot_take_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAPPA_RTL_CACHE", "my cache")
    assert " " not in str(cache.root())
