"""Header and driver know their unit from another one, stand beside each other, and hold vectors as a DMA moves them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_export import BRIEF, OPTIONS, REAL, SMALL, every_config
from test_hw_registers import Memory

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.rounding import on_grid, quantise, values
from kappa_rtl.golden.segments import Segment, in_beats, scales
from kappa_rtl.golden.throttle import laid_out
from kappa_rtl.hw.bus.map import digest, throttle_map
from kappa_rtl.hw.bus.registers import Access, RegisterMap
from kappa_rtl.hw.bus.text import c_header, class_name, expected_words, python_driver
from kappa_rtl.hw.export import export

SEGMENTED = OPTIONS["segments"]

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler as cc")

OTHERS = {
    "id": {"id": 0xDEADBEEF},
    "version.major": {"version": 0x70000},
    "elements": SMALL.replace(elements=6),
    "size.lanes": SMALL.replace(lanes=3),
    "size.mantissa_bits": SMALL.replace(mantissa_bits=16),
    "size.exponent_bits": SMALL.replace(exponent_bits=8),
    "size.step_bits": SMALL.replace(step_bits=10),
    "format_gradient.integer_bits": SMALL.replace(gradient="SQ4.5"),
    "format_gradient.fraction_bits": SMALL.replace(gradient="SQ3.6"),
    "format_weight.fraction_bits": SMALL.replace(weight="SQ2.7"),
    "format_update.fraction_bits": SMALL.replace(update="SQ1.10"),
    "format_step.integer_bits": SMALL.replace(eta_max=0.2),
    "digest": SMALL.replace(watchdog=("learning_dead",)),
}
"""What a program of ``SMALL`` first sees to be another unit's: by the register, that unit, or words of its own."""


def driver(config: ThrottleConfig, name: str = "throttle_axi") -> dict[str, Any]:
    made: dict[str, Any] = {"__name__": "driver"}
    exec(python_driver(config, throttle_map(config), name), made)
    return made


def memory_of(unit: ThrottleConfig | dict[str, int]) -> Memory:
    memory = Memory(throttle_map(unit if isinstance(unit, ThrottleConfig) else SMALL))
    if isinstance(unit, dict):
        memory.words |= {throttle_map(SMALL)[name].offset: word for name, word in unit.items()}
    return memory


def made_for(config: ThrottleConfig, memory: Memory, name: str = "throttle_axi") -> Any:
    return driver(config, name)[class_name(name)](lambda offset: memory.words.get(offset, 0), memory.write)


# ------------------------------------------------------------------------------------------------ one unit from another


@pytest.mark.parametrize("where", OTHERS)
def test_a_driver_refuses_another_unit(where: str) -> None:
    with pytest.raises(RuntimeError, match=rf"register {where} must be \S+, not \S+: this driver was made for another unit"):
        made_for(SMALL, memory_of(OTHERS[where]))
    made_for(SMALL, memory_of(SMALL))


def test_what_it_found_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"register size\.mantissa_bits must be 24, not 16: "):
        made_for(REAL, Memory(throttle_map(REAL.replace(mantissa_bits=16))))


@needs_cc
@pytest.mark.parametrize("language", ["-std=c99", "-xc++"])
def test_a_header_refuses_another_unit(language: str, tmp_path: Path) -> None:
    """And says in which register."""
    registers = throttle_map(SMALL)
    (tmp_path / "unit.h").write_text(c_header(SMALL, registers, "unit"))
    memories = [memory_of(SMALL), *map(memory_of, OTHERS.values())]
    arrays = [", ".join(f"{memory.words.get(4 * i, 0):#x}u" for i in range(1024)) for memory in memories]
    rows = ",\n".join(f"{{{words}}}" for words in arrays)
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include "unit.h"\nstatic const uint32_t units[][UNIT_SPAN / 4] = {{\n{rows}\n}};\n'
        "int main(void) {\n"
        f'  for (int i = 0; i < {len(memories)}; i++) printf("%d\\n", (int) unit_check(units[i]));\n  return 0;\n}}\n'
    )
    flags = [language, "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *flags, "-o", "main", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [-1, *(registers[where.split(".")[0]].offset for where in OTHERS)]


def test_the_digest_sees_every_change_that_a_program_sees() -> None:
    """Of a place, a name, an access, a field and a reset value; words for people and the version change nothing."""
    registers = throttle_map(SMALL)
    plain = RegisterMap(tuple(r for r in registers if r.name != "digest"))

    def of(given: RegisterMap) -> int:
        return digest(SMALL, "drop", given)

    assert registers["digest"].reset == of(plain)
    alpha = plain["alpha_e"]
    (part,) = alpha.fields

    def changed(**change: Any) -> int:
        return of(RegisterMap(tuple(replace(alpha, **change) if r is alpha else r for r in plain)))

    seen = [
        of(plain),
        of(RegisterMap(tuple(r for r in plain if r is not alpha))),
        changed(offset=alpha.offset + 4),
        changed(name="alpha_exponent"),
        changed(access=Access.RW),
        *(
            changed(fields=(replace(part, **change),))
            for change in ({"name": "v"}, {"lsb": 1}, {"width": 8}, {"reset": 1}, {"signed": False}, {"values": {"x": 1}})
        ),
    ]
    assert len(set(seen)) == len(seen)
    assert changed(doc="in other words", fields=(replace(part, doc="in other words"),)) == of(plain)
    version = plain["version"]
    newer = replace(version, fields=tuple(replace(f, reset=f.reset + 1) for f in version.fields))
    assert of(RegisterMap(tuple(newer if r is version else r for r in plain))) == of(plain)
    assert throttle_map(SMALL.replace(eta=0.05, eta_max=0.1))["digest"].reset != registers["digest"].reset, "a driver has its law"
    watched = SMALL.replace(watchdog=("gradient_floor",), gradient_floor=0.1)
    units = [SMALL, SMALL.replace(source="norm"), SMALL.replace(source="ratio"), watched, watched.replace(gradient_floor=0.2)]
    assert len({throttle_map(unit, frames)["digest"].reset for unit in units for frames in ("drop", "check")}) == 2 * len(units)


def test_the_digest_is_no_accident_of_a_run() -> None:
    """A driver of today knows the unit of a year ago."""
    about = json.dumps([SMALL.to_table(), "drop", []], sort_keys=True)
    assert digest(SMALL, "drop", RegisterMap(())) == int(hashlib.sha256(about.encode()).hexdigest()[:8], 16)
    assert [offset for offset, _, _ in expected_words(throttle_map(SMALL))][-1] == 0x23C


# ------------------------------------------------------------------------------------------------ two of them in one program


@pytest.mark.parametrize(
    ("name", "want"),
    {"throttle_axi": "ThrottleAxi", "throttle": "Throttle", "layer_2_unit": "Layer2Unit", "myUnit": "MyUnit"}.items(),
)
def test_the_class_has_the_name_of_the_module(name: str, want: str) -> None:
    assert class_name(name) == want == made_for(SMALL, memory_of(SMALL), name).__class__.__name__


@needs_cc
def test_two_headers_in_one_program(tmp_path: Path) -> None:
    units = {"first_layer": SMALL, "second_layer": REAL}
    for name, config in units.items():
        (tmp_path / f"{name}.h").write_text(c_header(config, throttle_map(config), name))
    uses = "\n".join(
        f'  printf("%u %u %u %u\\n", {n}_GRADIENT_LANES, {n}_GRADIENT_BEATS, {n}_SPAN, (unsigned) ({name}_check == 0));'
        for name in units
        for n in [name.upper()]
    )
    includes = "".join(f'#include "{name}.h"\n' for name in units)
    (tmp_path / "main.c").write_text(f"#include <stdio.h>\n{includes}{includes}int main(void) {{\n{uses}\n  return 0;\n}}\n")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-address", "-pedantic"]
    subprocess.run(["cc", *flags, "-o", "main", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 3 4096 0\n8 80 4096 0\n"


def test_two_drivers_in_one_program() -> None:
    """Each with its unit, and not with the other's."""
    units = {"first_layer": SMALL, "second_layer": REAL}
    memories = {name: memory_of(config) for name, config in units.items()}
    both = {name: made_for(config, memories[name], name) for name, config in units.items()}
    for name, config in units.items():
        both[name].set_rate(config.eta)
        assert both[name].get("elements") == config.elements
    with pytest.raises(RuntimeError, match="register elements must be 5, not 640"):
        made_for(SMALL, memories["second_layer"], "first_layer")


def test_the_length_of_lists_of_blocks() -> None:
    """Of a unit that has them."""
    listed = SMALL.replace(watchdog=("norm_growth",))
    unit = made_for(listed, memory_of(listed))
    for count in (1, 63, 0):
        unit.set_blocks(count)
        assert unit.get("blocks") == count
    with pytest.raises(ValueError, match=r"blocks\.value must be from 0 to 63, not 64"):
        unit.set_blocks(64)
    with pytest.raises(ValueError, match=r"register must be one of .*, not 'blocks'"):
        made_for(SMALL, memory_of(SMALL)).set_blocks(1)


# ------------------------------------------------------------------------------------------------ vectors


@needs_cc
@every_config
def test_a_header_has_the_vectors_of_the_streams(config: ThrottleConfig, tmp_path: Path) -> None:
    """Against the widths of the ports, and the type as the compiler has it."""
    from kappa_rtl.hw.bus.axi import AxiThrottle

    unit = AxiThrottle(config)
    unit._MustUse__used = True
    (tmp_path / "unit.h").write_text(c_header(config, throttle_map(config), "unit"))
    words = ("LENGTH", "BYTES", "BEATS", "LANES", "FIELD_BITS", "ELEMENT_BITS")
    prints = "".join(
        f'  printf("{vector} %u %u %u %u %u %u %u %d\\n", {", ".join(f"UNIT_{vector}_{word}" for word in words)},'
        f" (unsigned) sizeof(UNIT_{vector}_TYPE), (UNIT_{vector}_TYPE) -1 < 0);\n"
        for vector in ("GRADIENT", "WEIGHTS", "UPDATED")
    )
    (tmp_path / "main.c").write_text(f'#include <stdio.h>\n#include "unit.h"\nint main(void) {{\n{prints}  return 0;\n}}\n')
    subprocess.run(["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "main", "main.c"], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    grids = (config.grids.gradient, config.grids.weight, config.grids.weight)
    for line, port, grid in zip(
        done.stdout.splitlines(), ("s_axis_gradient", "s_axis_weights", "m_axis_updated"), grids, strict=True
    ):
        length, size, beats, lanes, field, element, of_type, signed = map(int, line.split()[1:])
        data = len(getattr(unit, f"{port}_tdata"))
        assert (beats, lanes, element) == (config.beats, config.lanes, grid.width)
        assert beats * data == 8 * size == field * length and field == data // lanes == 8 * of_type
        assert signed == 1 and length >= config.elements > length - lanes


@every_config
def test_codes_of_a_driver_are_golden_ones(config: ThrottleConfig) -> None:
    check_codes(made_for(config, memory_of(config)), config)


DRIVER_FAULTS = [
    ("numpy.rint(scaled)", "numpy.floor(scaled + 0.5)"),
    ("numpy.clip(numpy.rint(scaled), low, high)", "numpy.rint(scaled)"),
    ("low, high = -(1 << about.bits - 1), ", "low, high = 1 - (1 << about.bits - 1), "),
    ('given.astype("float64"), about.fraction_bits', 'given.astype("float32"), about.fraction_bits'),
    ("numpy.zeros(self._length, about.dtype)", "numpy.ones(self._length, about.dtype)"),
    ("numpy.zeros(self._length, about.dtype)", "numpy.zeros(places.size, about.dtype)"),
    ("-(about.fraction_bits + scales)", "1 - (about.fraction_bits + scales)"),
    ("-(about.fraction_bits + scales)", "-about.fraction_bits"),
    ("about.fraction_bits + scales)\n", "about.fraction_bits)\n"),
    ("first += -(-elements // LANES) * LANES", "first += elements"),
    ("found = given if given.shape == places.shape else given[places]", "found = given[: places.size]"),
    ("given.dtype == numpy.dtype(about.dtype) and", "False and"),
]


@pytest.mark.parametrize(("right", "wrong"), DRIVER_FAULTS)
def test_a_fault_of_the_codes_is_seen(right: str, wrong: str) -> None:
    config = laid_out(SEGMENTED, [Segment(5, 3), Segment(7)])  # whose first segment ends within a beat
    text = python_driver(config, throttle_map(config), "unit")
    assert right in text
    made: dict[str, Any] = {"__name__": "driver"}
    exec(text.replace(right, wrong, 1), made)
    memory = memory_of(config)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_codes(made["Unit"](memory.read, memory.write), config)


def check_codes(unit: Any, config: ThrottleConfig) -> None:
    """Values of every kind, of every vector, against the golden quantiser; a segment's on its own grid, in its own beats."""
    rng = np.random.default_rng(3)
    finer = scales(config.segments) if config.segments else np.zeros(config.elements, np.int64)
    places = in_beats(config.segments, config.lanes) if config.segments else np.arange(config.elements)
    for vector, grid in (("gradient", config.grids.gradient), ("weights", config.grids.weight), ("updated", config.grids.weight)):
        wild = rng.normal(0, 2 * abs(grid.rails[0]) * float(grid.ulp), config.elements)
        ties = np.array([0.5, 1.5, -2.5, np.nextafter(0.5, 1)])[: config.elements]  # and what is none by a hair
        wild[: len(ties)] = ties * float(grid.ulp)
        codes = unit.codes(vector, np.ldexp(wild, -finer), nearest=True)
        assert codes.dtype == unit.buffer(vector).dtype == np.dtype(f"int{8 * codes.itemsize}")
        assert codes.shape == unit.buffer(vector).shape == (config.beats * config.lanes,)
        own = codes[places]
        assert (own == quantise(wild, grid)).all() and not np.delete(codes, places).any()
        exact = np.ldexp(values(own, grid), -finer)
        assert (unit.values(vector, codes) == exact).all() and (unit.values(vector, own) == exact).all()
        for given in (exact, own, list(exact), exact.astype(object).astype(float)):
            again = unit.codes(vector, given)
            assert (again == codes).all() and (again[places] == on_grid(np.ldexp(exact, finer), grid)).all()


class Table(Memory):
    """A bus with a unit behind it that takes any table of segments, of as many beats as the host says."""

    def __init__(self, config: ThrottleConfig) -> None:
        self.registers = throttle_map(config)
        super().__init__(self.registers)
        self.config, self.entries, self.writes = config, list[tuple[int, int]](), 0

    def write(self, offset: int, word: int) -> None:
        self.writes += 1
        if offset != self.registers["command"].offset:
            super().write(offset, word)
            return
        if word & 2:
            self.entries.clear()
        if word & 4:
            given = self.read(self.registers["layout"].offset)
            self.entries.append((given >> 8, given & 0xFF))
        if len(self.entries) == self.config.entries:
            beats = sum(-(-elements // self.config.lanes) for elements, _ in self.entries)
            self.words[self.registers["beats"].offset] = beats


def test_a_driver_writes_another_layout() -> None:
    """The whole table, its beats and the constant of it as golden has them, and vectors of it."""
    memory = Table(SEGMENTED)
    unit = made_for(SEGMENTED, memory)
    rng = np.random.default_rng(5)
    for _ in range(40):
        count = int(rng.integers(1, SEGMENTED.entries + 1))
        segments = [(int(rng.integers(1, 50 // count + 1)), int(rng.integers(0, 8))) for _ in range(count)]
        other = laid_out(SEGMENTED, [Segment(*one) for one in segments])
        unit.start()
        unit.layout(segments)
        assert memory.entries == segments + [(0, 0)] * (SEGMENTED.entries - count)
        assert unit.segments == tuple(segments) and unit.scalar("still_norm") == other.constants["still_norm"]
        check_codes(unit, other)
    memory.words[memory.registers["beats"].offset] = SEGMENTED.beats
    unit.reset()
    check_codes(unit, SEGMENTED)


def test_a_shard_keeps_its_constant() -> None:
    """That of all shards, of the finest grid that any may have, whatever the segments are."""
    shard = SEGMENTED.replace(population=80)
    memory = Table(shard)
    unit = made_for(shard, memory)
    unit.layout([(3, 0), (20, 5)])
    other = laid_out(shard, [Segment(3, 0), Segment(20, 5)])
    assert unit.scalar("still_norm") == other.constants["still_norm"] == shard.constants["still_norm"]
    assert other.constants["still_norm"] != laid_out(SEGMENTED, [Segment(3, 0), Segment(20, 5)]).constants["still_norm"]
    check_codes(unit, other)
    for about, told in ((shard, False), (SEGMENTED, True)):
        assert ("Write still_norm_m" in c_header(about, throttle_map(about), "throttle_axi")) == told
        for bus in ("", "axi"):
            assert ("still_norm" in export(about, bus=bus)[1]["layout"]["comment"]) == told


def test_the_root_of_a_driver_is_the_golden_one() -> None:
    """Of numbers of every size, of squares, and of what lies in the middle of two scalars or beside it."""
    unit = made_for(SEGMENTED, memory_of(SEGMENTED))
    bits = SEGMENTED.mantissa_bits
    middles = [Fraction(2 * m + 1, 2) ** 2 for m in ((1 << bits) - 1, (1 << bits) - 2, 1 << bits - 1, (1 << bits - 1) + 1)]
    beside = [middle + Fraction(sign, 1 << 40) for middle in middles for sign in (-1, 1)]
    for value in (*middles, *beside, *map(Fraction, range(1, 300)), *(Fraction(k, 4**9) for k in range(1, 300))):
        assert unit._nearest("still_norm", value, root=True) == SEGMENTED.scalar.constant(value, name="x", root=True), value


@pytest.mark.parametrize(
    ("segments", "rule"),
    [
        ([], "segments must be from 1 to entries = 4, not 0"),
        ([(1, 0)] * 5, "segments must be from 1 to entries = 4, not 5"),
        ([(1, 0), 7], r"segments\[1\] must be a pair \(elements, scale\), not 7"),
        ([(1, 0), (2.0, 0)], r"segments\[1\] must be a pair \(elements, scale\), not \(2\.0, 0\)"),
        ([(1, 0), (0, 0)], r"segments\[1\]\.elements must be at least 1, not 0"),
        ([(1, 8)], r"segments\[0\]\.scale must be from 0 to 7, not 8"),
        ([(1, -1)], r"segments\[0\]\.scale must be from 0 to 7, not -1"),
        ([(30, 0), (21, 0)], "segments must have from 1 to capacity = 50 elements together, not 51"),
    ],
)
def test_what_is_no_layout_is_refused(segments: Any, rule: str) -> None:
    memory = Table(SEGMENTED)
    unit = made_for(SEGMENTED, memory)
    with pytest.raises(ValueError, match=rule):
        unit.layout(segments)
    assert not memory.writes and unit.segments == ((4, 3), (7, 0)), "nothing is written"
    with pytest.raises(ValueError, match=r"segments must not be given to a unit that was made without them, not \[\(1, 0\)\]"):
        made_for(SMALL, memory_of(SMALL)).layout([(1, 0)])


def test_a_layout_that_is_not_taken_is_told() -> None:
    memory = Table(SEGMENTED)
    unit = made_for(SEGMENTED, memory)
    memory.words[memory.registers["irq_status"].offset] = 1 << 10
    with pytest.raises(RuntimeError, match="the table must be taken whole, which the unit refused"):
        unit.layout([(3, 0)])
    assert unit.segments == ((4, 3), (7, 0))
    memory.words[memory.registers["command"].offset] = 4
    with pytest.raises(RuntimeError, match=r"command\.layout must be 0 within 100 reads, not 1"):
        unit.layout([(3, 0)])


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ([0.0] * 4, r"gradient must have shape \(5,\), not \(4,\)"),
        ([0.0, 0.01, 0, 0, 0], r"gradient\[1\] must be a multiple of 2\*\*-5 from -4\.0 to 3\.96875, not 0\.01"),
        ([0, 0, 4, 0, 0], r"gradient\[2\] must be a multiple .* not 4"),
        (np.array([0, 0, 0, 128, 0], np.int16), r"gradient\[3\] must be a multiple"),
        (np.array([0, np.nan, 0, 0, 0]), r"gradient\[1\] must be a multiple .* not nan"),
        (["a"] * 5, "gradient must hold integers or floats, not <U1"),
        ([True] * 5, "gradient must hold integers or floats, not bool"),
    ],
)
def test_what_is_no_vector_is_refused(numbers: Any, rule: str) -> None:
    unit = made_for(SMALL, memory_of(SMALL))
    with pytest.raises(ValueError, match=rule):
        unit.codes("gradient", numbers)


def test_codes_beyond_the_element_are_refused() -> None:
    """An element may be narrower than its field, and what is above it would be ignored."""
    config = SMALL.replace(gradient="SQ3.4")
    unit = made_for(config, memory_of(config))
    for nearest in (False, True):
        with pytest.raises(ValueError, match=r"gradient\[1\] must be a code from -64 to 63, not 64"):
            unit.codes("gradient", np.array([63, 64, 0, 0, 0], np.int8), nearest=nearest)
    for bad in (np.inf, np.nan):
        with pytest.raises(ValueError, match=r"gradient\[4\] must be finite, not "):
            unit.codes("gradient", [0, 0, 0, 0, bad], nearest=True)
    with pytest.raises(ValueError, match=r"updated must be int8 of shape \(6,\), not int16 of \(6,\)"):
        unit.values("updated", np.zeros(6, np.int16))
    with pytest.raises(ValueError, match="vector must be one of gradient, weights, updated, not 'bias'"):
        unit.buffer("bias")


def test_a_buffer_is_what_the_host_allocates() -> None:
    asked = []

    def allocate(**how: Any) -> Any:
        asked.append(how)
        return np.full(fill_value=7, **how)

    unit = made_for(BRIEF, memory_of(BRIEF))
    buffer = unit.buffer("weights", allocate)
    assert asked == [{"shape": (4,), "dtype": np.dtype(np.int8)}] and not buffer.any()


def test_numpy_is_imported_only_for_vectors(tmp_path: Path) -> None:
    """A host that moves vectors by other means needs none."""
    (tmp_path / "unit.py").write_text(python_driver(SMALL, throttle_map(SMALL), "unit"))
    words = json.dumps({str(offset): word for offset, word in memory_of(SMALL).words.items()})
    program = (
        "import json, sys; from unit import Unit; words = json.loads(sys.argv[1]); "
        "unit = Unit(lambda offset: words[str(offset)], lambda offset, word: words.__setitem__(str(offset), word)); "
        "unit.set_rate(0.05); unit.registers(); assert 'numpy' not in sys.modules; "
        "unit.buffer('gradient'); assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, words], cwd=tmp_path, check=True)
