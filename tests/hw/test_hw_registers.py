"""The register map and what is made of it: page, header, driver, manifest, and the Verilog that it decodes."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_export import CONFIGS, OPTIONS, REAL, SMALL, declared, every_config, lint

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Overflow, Rounding
from kappa_rtl.golden.registers import CONSTANTS, MEANINGS, WATCHES
from kappa_rtl.hw.bus.axi import AxiThrottle
from kappa_rtl.hw.bus.map import throttle_map
from kappa_rtl.hw.bus.registers import ADDRESS_BITS, Access, Field, Register, RegisterMap
from kappa_rtl.hw.bus.text import c_header, markdown, python_driver
from kappa_rtl.hw.export import export, write
from kappa_rtl.scripts import pages
from kappa_rtl.scripts.export import command
from support import ROOT

PAGE = ROOT / "docs" / "registers.md"
WIDEST = ThrottleConfig(
    elements=1 << 20, lanes=32, eta=0.1, mantissa_bits=64, exponent_bits=16, gradient="SQ1.29", weight="SQ1.29", update="SQ1.29"
)


@cache
def exported(config: ThrottleConfig) -> tuple[str, dict[str, Any]]:
    return export(config, bus="axi")


# ------------------------------------------------------------------------------------------------ the map


def test_offsets_are_the_same_for_every_configuration() -> None:
    """And what only some units have takes no other one's words."""
    maps = [throttle_map(config) for config in (*CONFIGS.values(), WIDEST)]
    places = [{r.name: r.offset for r in registers} for registers in maps]
    assert all(place == places[0] for place in places)
    for config in OPTIONS.values():
        place = {r.name: r.offset for r in throttle_map(config)}
        assert place | places[0] == place
        assert set(config.counters) <= set(place)
    owners: dict[int, str] = {}
    for config in (*OPTIONS.values(), WIDEST):
        for r in throttle_map(config):
            assert all(owners.setdefault(r.offset + 4 * i, r.name) == r.name for i in range(r.words))


def test_reset_values_are_the_configuration() -> None:
    for config in (*CONFIGS.values(), WIDEST):
        registers = throttle_map(config)
        for name in CONSTANTS:
            (m,), (e,) = registers[f"{name}_m"].fields, registers[f"{name}_e"].fields
            assert (m.reset, e.reset) == config.constants[name]
            assert (m.width, e.width) == (config.mantissa_bits, config.exponent_bits)


NUMBERS = {
    "rounding": {
        **{"nearest_even": 0, "nearest_up": 1, "nearest_down": 2, "nearest_zero": 3, "nearest_away": 4},
        **{"floor": 5, "toward_zero": 6, "stochastic": 7},
    },
    "measures": {"curvature": 0, "norm": 1, "ratio": 2, "projection": 3, "intended": 4},
    "overflow": {"saturate": 0, "saturate_symmetric": 1, "wrap": 2, "zero": 3},
    "source": {"instant": 0, "ema": 1, "max": 2},
    "on_still": {"floor": 0, "hold": 1, "divide": 2, "release": 3},
}
BITS = {
    "status": {
        **{"busy": 0, "still": 1, "leaving": 2},
        **{"learning_dead": 8, "scalar_overflow": 9, "scalar_underflow": 10, "memory_fault": 11, "step_overflow": 12},
    },
    "irq_status": {
        **{"done": 0, "learning_dead": 1, "scalar_overflow": 2, "scalar_underflow": 3},
        **{"gradient_frame": 4, "weights_frame": 5, "watchdog": 6, "memory_fault": 7, "step_overflow": 8, "blocks_frame": 9},
    },
    "command": {"clear": 0, "reset": 1},
    "watchdog": {"gradient_floor": 0, "norm_growth": 1, "learning_dead": 2, "scalar_overflow": 3},
}
BITS |= {"irq_enable": BITS["irq_status"], "watchdog_mask": BITS["watchdog"]}


def test_no_number_on_the_bus_moves() -> None:
    """Hosts hold these numbers: a new name gets a new one, here too."""
    assert {mode.value for mode in Rounding} == set(NUMBERS["rounding"])
    assert {mode.value for mode in Overflow} == set(NUMBERS["overflow"])
    everything = SMALL.replace(parity=True, watchdog=WATCHES, gradient_floor=0.1, delay=1)
    registers = throttle_map(everything)
    found = {f.name: f.values for r in registers for f in r.fields if f.values}
    assert found == {
        **{f"{grid}_{kind}": NUMBERS[kind] for grid in ("update", "weight") for kind in ("rounding", "overflow")},
        **{name: NUMBERS[name] for name in ("source", "on_still", "measures")},
    }
    for name, bits in BITS.items():
        assert {f.name: f.lsb for f in registers[name].fields} == bits
    assert [registers[f"watchdog_step_{name}"].offset for name in WATCHES] == [0x1E8, 0x1EC, 0x1F0, 0x1F4]
    table = throttle_map(OPTIONS["segments"])
    for name, bit in {"status": 3, "irq_status": 10, "irq_enable": 10, "command": 2}.items():
        assert [f.lsb for f in table[name].fields if f.name == "layout"] == [bit]
    (fault,) = (f for f in throttle_map(SMALL.replace(parity=True))["irq_status"].fields if f.name == "memory_fault")
    assert fault.lsb == 6, "without a watchdog"


def test_the_number_of_a_mode_is_that_of_its_grid() -> None:
    """Every rounding and overflow, of the update's grid and of the weight's, as a host reads it."""
    for rounding in Rounding:
        for overflow in Overflow:
            modes = throttle_map(SMALL.replace(update=f"SQ1.9,{rounding.value},{overflow.value}", motion="applied"))["modes"]
            fields = {f.name: f.reset for f in modes.fields}
            assert fields["update_rounding"] == NUMBERS["rounding"][rounding.value]
            assert fields["update_overflow"] == NUMBERS["overflow"][overflow.value]


def test_a_host_sees_what_fits_the_table() -> None:
    """And no bit of an entry is cut off, so that one that is too large is seen to be."""
    config = OPTIONS["segments"]
    registers = throttle_map(config)
    assert {r.name: r.offset for r in registers if 0x60 <= r.offset < 0x80} == {
        **{"table": 0x60, "capacity": 0x68, "layout": 0x70, "beats": 0x78}
    }
    assert {f.name: f.reset for f in registers["table"].fields} == {"entries": 4, "scale_max": 7}
    assert registers["capacity"].reset == 50 and registers["beats"].reset == config.beats == 3
    for capacity, words in ((50, 1), ((1 << 24) - 1, 1), (1 << 24, 2), (1 << 32, 2)):
        registers = throttle_map(config.replace(capacity=capacity))
        assert [(f.name, f.lsb, f.width) for f in registers["layout"].fields] == [
            *(("scale", 0, 8), ("elements", 8, 32 * words - 8)),
        ]
        assert registers["beats"].fields[0].width == config.replace(capacity=capacity).words.bit_length()
    restarts = {r.name for r in registers if r.name != "control" and any(f.restarts for f in r.fields)}
    assert restarts == {"still_norm_m", "still_norm_e"}, "of another layout"


def test_a_program_is_told_of_the_segments() -> None:
    """In the manifest, and in the header with the beats of each."""
    config = OPTIONS["segments"]
    text, manifest = export(config, bus="axi")
    layout = manifest["layout"]
    assert layout["registers"] == ["table", "capacity", "layout", "beats"] and "port" not in layout
    assert (layout["entries"], layout["scale_max"], layout["elements_at_most"]) == (4, 7, 50)
    assert [(s["elements"], s["scale"]) for s in manifest["registers"]["segments"]] == [(4, 3), (7, 0)]
    assert manifest["latency"]["beats_per_pass"] == 3 and manifest["latency"]["elements_in_last_beat"] == 3
    assert not any("layout" in name for name in declared(text, "throttle_axi"))
    header = c_header(config, throttle_map(config), "unit")
    for line in ("SEGMENTS {{4u, 3u}, {7u, 0u}}", "GRADIENT_LENGTH 12u", "GRADIENT_BEATS 3u", "TABLE_ENTRIES_RESET 0x4u"):
        assert f"#define UNIT_{line}" in header
    assert "For other segments" in header and "SEGMENTS" not in c_header(SMALL, throttle_map(SMALL), "unit")


def test_what_a_counter_or_flag_means_is_said_once() -> None:
    """In golden/registers.py; the map says it in its words."""
    registers = throttle_map(SMALL.replace(parity=True, every_rail=True))
    told = {r.name: r.doc for r in registers} | {f.name: f.doc for f in registers["status"].fields}
    for name, meaning in MEANINGS.items():
        assert told[name].startswith(meaning)


def test_what_overlaps_is_refused() -> None:
    def one(name: str, offset: int, *fields: Field) -> Register:
        return Register(name=name, offset=offset, access=Access.RW, fields=fields or (Field(width=32),))

    wide = one("a", 0, Field(width=33))
    for registers, match in (
        ((wide, one("b", 4)), "register b must have its own name and words, not those at 0x4"),
        ((one("a", 0), one("a", 4)), "register a must have"),
        ((one("a", 2),), "register a must have"),
        ((one("a", 1 << ADDRESS_BITS),), "must fit into 4096 bytes, not 4100"),
        ((one("a", 0, Field(name="x", width=4), Field(name="y", lsb=3)),), r"field a\.y must begin at bit 4 or later, not 3"),
    ):
        with pytest.raises(ValueError, match=match):
            RegisterMap(registers)


# ------------------------------------------------------------------------------------------------ what is made of it


def test_the_page_is_of_this_map() -> None:
    """docs/registers.md is the page of the README's example; and it names every register, field and value."""
    page = markdown(throttle_map(REAL), "throttle_axi")
    assert PAGE.read_text() == page == pages.registers(), "write it anew: make pages"
    for register in throttle_map(REAL):
        assert page.count(f"| {register.offset:#05x} | `{register.name}` |") == 1
        for field in register.fields:
            assert register.plain or f"| `{field.name}` |" in page
            assert all(f"{value} {name}" in page for name, value in field.values.items())


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler as cc")
@every_config
def test_a_c_program_sees_the_map(config: ThrottleConfig, tmp_path: Path) -> None:
    """Every macro, as a compiler reads it, under all its warnings."""
    registers = throttle_map(config)
    want: dict[str, int] = {}
    for r in registers:
        want[f"{r.name}_offset"], want[f"{r.name}_words"] = r.offset, r.words
        for f in r.fields:
            stem = r.name if r.plain else f"{r.name}_{f.name}"
            want[f"{stem}_width"] = f.width
            want |= {f"{stem}_{name}": value for name, value in f.values.items()}
            if f.lsb + f.width <= 64:
                want |= {f"{stem}_lsb": f.lsb, f"{stem}_mask": ((1 << f.width) - 1) << f.lsb, f"{stem}_reset": f.reset}
    prints = "\n".join(f'  printf("{name} %lld\\n", (long long) UNIT_{name.upper()});' for name in want)
    (tmp_path / "unit.h").write_text(c_header(config, registers, "unit"))
    (tmp_path / "main.c").write_text(f'#include <stdio.h>\n#include "unit.h"\nint main(void) {{\n{prints}\n  return 0;\n}}\n')
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *flags, "-o", "main", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines())
    assert {name: int(value) % (1 << 64) for name, value in found.items()} == {k: v % (1 << 64) for k, v in want.items()}


class Memory:
    """Words that read as they were written; a bus for the driver."""

    def __init__(self, registers: RegisterMap) -> None:
        self.words = {r.offset + 4 * i: r.reset >> 32 * i & 0xFFFFFFFF for r in registers for i in range(r.words)}
        self.steps = 0

    def read(self, offset: int) -> int:
        return self.words[offset]

    def write(self, offset: int, word: int) -> None:
        assert 0 <= word < 1 << 32
        self.words[offset] = word


@every_config
def test_the_driver_on_a_memory(config: ThrottleConfig) -> None:
    registers = throttle_map(config)
    made: dict[str, Any] = {"__name__": "driver"}
    exec(python_driver(config, registers, "throttle_axi"), made)
    memory = Memory(registers)
    unit = made["ThrottleAxi"](memory.read, memory.write)
    for register in registers:
        for field in register.fields:
            assert unit.get(register.name, field.name) == field.reset
            if register.access is not Access.RW:
                continue
            low, high = (-(1 << (field.width - 1)), (1 << (field.width - 1)) - 1) if field.signed else (0, (1 << field.width) - 1)
            for value in (low, high, 1 - high % 2, field.reset):
                unit.set(register.name, **{field.name: value})
                assert unit.get(register.name, field.name) == value
            for value in (low - 1, high + 1):
                with pytest.raises(ValueError, match=f"must be from {low} to {high}, not {value}"):
                    unit.set(register.name, **{field.name: value})
    assert [unit.get(r.name, f.name) for r in registers for f in r.fields] == [f.reset for r in registers for f in r.fields]
    assert {name: unit.scalar(name) for name in CONSTANTS} == config.constants
    most = Fraction(config.eta_max)  # type: ignore[arg-type]
    for rate in (0, most, most / 3, most * 7 / 16):
        unit.set_rate(rate)
        assert {name: unit.scalar(name) for name in CONSTANTS} == config.constants_at(rate)
    unit.set_rate(config.eta)
    for wrong in (-1, 2 * most):
        with pytest.raises(ValueError, match="eta must be from 0 to "):
            unit.set_rate(wrong)
    with pytest.raises(ValueError, match=r"constant must be one of eta, .*, not 'beta'"):
        unit.configure(beta=(1, 2))
    before = dict(memory.words)
    for wrong, rule in (
        ({"source": "median"}, "source must be one of .*, not 'median'"),
        ({"on_still": "stop"}, "on_still must be one of .*, not 'stop'"),
        ({"gain": 3}, r"gain must be a pair \(m, e\), not 3"),
        ({"gain": (1, 2)}, "gain: m must be 0 or have .* bits, not 1"),
        ({"gain": (0, 1)}, "gain: e must be 0 where m is 0, not 1"),
        ({"gain": (1.0, 0)}, r"gain_m.value must be an integer, not 1\.0"),
        ({"eta": (0, 0), "gain": (config.constants["eta"].m, 1 << 20)}, "gain_e.value must be from .* to .*, not 1048576"),
    ):
        with pytest.raises(ValueError, match=rule):
            unit.configure(**wrong)
        assert memory.words == before, "nothing is written where something is wrong"
    with pytest.raises(ValueError, match="register steps cannot be written"):
        unit.set("steps", value=1)
    with pytest.raises(ValueError, match=r"field of control must be one of run, .*, not 'walk'"):
        unit.get("control", "walk")

    def restless(offset: int) -> int:
        memory.words[registers["steps"].offset] += 1
        return memory.read(offset)

    with pytest.raises(RuntimeError, match="a step ended in each of 3 attempts"):
        made["ThrottleAxi"](restless, memory.write).registers()
    memory.words[0] = 0xDEADBEEF
    with pytest.raises(
        RuntimeError, match="register id must be 0x4b415041, not 0xdeadbeef: this driver was made for another unit"
    ):
        made["ThrottleAxi"](memory.read, memory.write)


# ------------------------------------------------------------------------------------------------ the export


@every_config
def test_verilator_finds_nothing(config: ThrottleConfig, tmp_path: Path) -> None:
    assert lint(export(config, bus="axi", name="throttle")[0], tmp_path) == ""


@pytest.mark.icarus
@every_config
def test_icarus_reads_it_as_verilog_2005(config: ThrottleConfig, tmp_path: Path) -> None:
    (tmp_path / "unit.v").write_text(exported(config)[0])
    command = ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", "unit.vvp", "unit.v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@every_config
def test_manifest_names_the_top_and_its_ports(config: ThrottleConfig) -> None:
    text, manifest = exported(config)
    assert manifest["module"] == "throttle_axi" and manifest["variant"] == "axi"
    listed = {port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]}
    assert listed == declared(text, manifest["module"])
    assert manifest["register_map"] == throttle_map(config).table()
    for name, about in manifest["streams"].items():
        assert about["field_bits"] in (8, 16, 32) and about["element_bits"] <= about["field_bits"]
        assert listed[f"{name}_tdata"][1] == about["lanes"] * about["field_bits"]
    unit = AxiThrottle(config)
    assert manifest["latency"]["step_at_most"] == unit.step_cycles
    assert manifest["host"]["words"] == {"0x040": throttle_map(config)["control"].reset | 1}


def test_the_command_writes_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "throttle.toml").write_text('[throttle]\nlaw = "stability_margin"\nelements = 4\neta = 0.1\nlanes = 2\n')
    told = ["--config", str(tmp_path / "throttle.toml"), "--bus", "axi", "-o", str(tmp_path / "out" / "unit.v")]
    done = CliRunner().invoke(command, told)
    assert done.exit_code == 0, done.output
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [
        f"unit{end}" for end in (".h", ".json", ".md", ".py", ".rdl", ".v", ".vhd", ".xml", "_hw.tcl")
    ]
    assert all(str(path) in done.output for path in written)
    manifest = json.loads((tmp_path / "out" / "unit.json").read_text())
    assert f"module {manifest['module']} " in (tmp_path / "out" / "unit.v").read_text()
    both = CliRunner().invoke(command, [*told, "--streaming"])
    assert both.exit_code == 1 and "the streaming variant has no bus" in both.output


def test_options_of_the_bus(tmp_path: Path) -> None:
    """How it treats frames, and its clock: in the ports, the map and the manifest; and not without a bus."""
    watched = SMALL.replace(watchdog=("norm_growth",))
    text, manifest = export(watched, bus="axi")
    assert manifest["frames"] == "drop" and manifest["bus_clock"] is False and manifest["latency"]["passes"] == 3
    assert "s_axis_blocks_tlast" in declared(text, "throttle_axi") and "s_axi_aclk" not in declared(text, "throttle_axi")
    assert throttle_map(watched)["blocks"].offset == 0x58
    text, manifest = export(watched, bus="axi", frames="check", bus_clock=True)
    assert manifest["frames"] == "check" and manifest["bus_clock"] is True and manifest["latency"]["passes"] == 2
    found = declared(text, "throttle_axi")
    assert "s_axis_blocks_tlast" not in found and found["s_axi_aclk"] == found["s_axi_aresetn"] == ("input", 1)
    assert "blocks" not in [r["name"] for r in manifest["register_map"]]
    assert lint(export(watched, bus="axi", bus_clock=True, name="throttle")[0], tmp_path) == ""
    with pytest.raises(ValueError, match="frames must be one of drop, check, not 'keep'"):
        export(SMALL, bus="axi", frames="keep")
    with pytest.raises(ValueError, match="frames must not be given without a bus, not 'check'"):
        export(SMALL, frames="check")
    with pytest.raises(ValueError, match="bus_clock must not be given without a bus, not True"):
        export(SMALL, bus_clock=True)


NAMES = {
    **{".json": "manifest", ".md": "page", ".h": "header", ".py": "driver"},
    **{".rdl": "map in SystemRDL", ".xml": "IP-XACT component", ".vhd": "VHDL package"},
}


@pytest.mark.parametrize(("suffix", "what"), NAMES.items())
def test_no_file_takes_another_ones_place(suffix: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"output must not end in \{suffix}, which is the {what}'s"):
        write(SMALL, tmp_path / f"unit{suffix}", bus="axi")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="bus must be one of axi, not 'apb'"):
        export(SMALL, bus="apb")
