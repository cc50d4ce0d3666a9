# ruff: noqa: E501  a fault a row reads best
"""The writer of Verilog against Amaranth's own simulator: operators in every context, decisions, memories, resets."""

from __future__ import annotations

import random
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

import kappa_rtl.hw.export as hw_export
import kappa_rtl.hw.verilog.writer as writer

pytestmark = pytest.mark.icarus

INPUTS = {"a": signed(5), "b": unsigned(5), "c": signed(3), "d": unsigned(8), "s": unsigned(3)}
CYCLES = 300


def expression(rng: random.Random, depth: int, inputs: dict[str, Any]) -> Value:
    """A random value of at most 20 bits."""
    if not depth:
        leaf = rng.choice([*inputs.values(), rng.randrange(16), -rng.randrange(1, 8)])
        return Value.cast(leaf)

    def part() -> Value:
        return expression(rng, depth - 1, inputs)

    found: Value
    match rng.randrange(20):
        case 0 | 1:
            found = part() + part()
        case 2:
            found = part() - part()
        case 3:
            found = part()[:6] * part()[:4].as_signed() if rng.random() < 0.5 else part() * rng.randrange(4)
        case 4:
            found = part() & part()
        case 5:
            found = part() | part()
        case 6:
            found = part() ^ part()
        case 7:
            found = ~part()
        case 8:
            found = -part()
        case 9:
            found = Value.cast(rng.choice([part().__eq__, part().__ne__, part().__lt__, part().__ge__])(part()))
        case 10:
            found = Mux(part().any(), part(), part())
        case 11:
            found = Cat(part(), part())
        case 12:
            found = part() << part()[:2].as_unsigned()
        case 13:
            found = part() >> part()[:3].as_unsigned()
        case 14:
            found = Value.cast(rng.choice([part().any, part().all, part().xor])())
        case 15:
            found = Cat(part(), part()).bit_select(inputs["s"], rng.randrange(1, 5))
        case 16:
            found = Cat(part(), part(), part()).word_select(inputs["s"][:2], 3)
        case 17:
            found = part().as_signed() if rng.random() < 0.5 else part().as_unsigned()
        case 18:
            found = part()[:1].replicate(3)
        case _:
            found = Array([part(), part(), part()])[inputs["s"][:2]]
    return found if len(found) <= 20 else found[:20].as_signed() if rng.random() < 0.5 else found[:20]


class Zoo(wiring.Component):
    """Random expressions, registers with decisions in decisions, and a memory; a submodule holds half of it."""

    def __init__(self, seed: int, inner: bool = True) -> None:
        self.rng, self.seed, self.inner = random.Random(seed), seed, inner
        super().__init__({name: In(shape) for name, shape in INPUTS.items()} | {"out": Out(640)})

    def elaborate(self, platform: Any) -> Module:
        m, rng = Module(), self.rng
        inputs = {name: getattr(self, name) for name in INPUTS}
        named = Signal(signed(9), name="named")
        m.d.comb += named.eq(expression(rng, 2, inputs))
        inputs["named"] = named
        outputs: list[Value] = [expression(rng, rng.randrange(1, 4), inputs) for _ in range(20)]
        for i in range(4):
            register = Signal(rng.choice([signed(7), unsigned(12)]), name=f"register{i}", init=i, reset_less=i == 3)
            domain = m.d.sync if i else m.d.comb
            with m.If(expression(rng, 1, inputs).any()):
                domain += register.eq(expression(rng, 2, inputs))
                with m.If(self.b[1]):
                    domain += register[:3].eq(expression(rng, 1, inputs))
            with m.Elif(self.a[0]):
                domain += register[2:5].eq(expression(rng, 1, inputs))
            with m.Else(), m.Switch(self.d[:4]):
                with m.Case(3, "1-0-"):
                    domain += register.eq(expression(rng, 2, inputs))
                with m.Case("--01"):
                    domain += register[4:].eq(5)
                with m.Case(2):
                    domain += register[0].eq(1)
                with m.Default():
                    domain += register.eq(register + 1 if i else self.a)
            with m.Switch(self.s):
                with m.Case(1, 2):
                    domain += register[1:3].eq(self.b)
                with m.Case(5):
                    domain += register.eq(named)
            outputs.append(register)
        m.submodules.store = store = memory.Memory(shape=8, depth=4, init=[1, 2, 3])
        write, fetch, look = store.write_port(granularity=4), store.read_port(domain="sync"), store.read_port(domain="comb")
        m.d.comb += [write.addr.eq(self.d), write.data.eq(self.d ^ self.b), write.en.eq(self.s)]
        m.d.comb += [fetch.addr.eq(self.b), fetch.en.eq(self.c[0]), look.addr.eq(self.s)]
        outputs += [fetch.data, look.data]
        if self.inner:
            m.submodules.inner = inner = Zoo(self.seed + 1000, inner=False)
            m.d.comb += [getattr(inner, name).eq(expression(rng, 1, inputs)) for name in INPUTS]
            outputs.append(inner.out[:200])
        m.d.comb += self.out.eq(Cat(outputs))
        return m


def stimuli(seed: int) -> list[dict[str, int]]:
    rng = random.Random(seed)
    return [{name: rng.randrange(1 << shape.width) for name, shape in INPUTS.items()} for _ in range(CYCLES)]


def simulated(seed: int) -> list[int]:
    """The outputs in each cycle, by Amaranth."""
    zoo, seen = Zoo(seed), []

    async def bench(ctx: Any) -> None:
        for row in stimuli(seed):
            for name, word in row.items():
                wire = getattr(zoo, name)
                ctx.set(wire, word - (word >> len(wire) - 1 << len(wire)) if wire.shape().signed else word)
            seen.append(ctx.get(zoo.out))
            await ctx.tick()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulator = Simulator(zoo)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()
    return seen


def run(verilog: str, seed: int, language: str, folder: Path) -> list[int]:
    """The same by Icarus from the text."""
    total = sum(shape.width for shape in INPUTS.values())
    rows = []
    for row in stimuli(seed):
        word, place = 0, 0
        for name, shape in INPUTS.items():
            word |= row[name] << place
            place += shape.width
        rows.append(f"{word:x}")
    (folder / "in.hex").write_text("\n".join(rows) + "\n")
    pins, place = [], 0
    for name, shape in INPUTS.items():
        pins.append(f".{name}(now[{place + shape.width - 1}:{place}])")
        place += shape.width
    (folder / "bench.v").write_text(f"""
module bench;
  reg clk = 0;
  reg [{total - 1}:0] rows [0:{CYCLES - 1}];
  reg [{total - 1}:0] now;
  wire [639:0] out;
  integer i;
  zoo dut (.clk(clk), .rst(1'b0), {", ".join(pins)}, .out(out));
  initial begin
    $readmemh("in.hex", rows);
    for (i = 0; i < {CYCLES}; i = i + 1) begin
      now = rows[i];
      #1 $display("%h", out);
      clk = 1;
      #1 clk = 0;
    end
  end
endmodule
""")
    (folder / "zoo.v").write_text(verilog)
    command = ["iverilog", f"-g{language}", "-Wall", "-Wno-timescale", "-o", "zoo.vvp", "-s", "bench", "zoo.v", "bench.v"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    done = subprocess.run(["vvp", "-n", "zoo.vvp"], cwd=folder, capture_output=True, text=True, check=True)
    return [int(line, 16) if "x" not in line else -1 for line in done.stdout.split()]


def text(seed: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hw_export.to_verilog(Zoo(seed), "zoo")


@pytest.mark.parametrize("language", ["2005", "2012"])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_the_text_does_what_amaranth_does(seed: int, language: str, tmp_path: Path) -> None:
    """With memories that answer a cycle later and registers that nobody resets, from the first cycle on."""
    assert run(text(seed), seed, language, tmp_path) == simulated(seed)


FAULTS = {
    "operands wider than they were": ('return Expression(f"{{{found.text}}}", wire.width, closed=True)', "return found"),
    "a sign lost": ('return Expression(f"$signed({self.value(value).text})", length(value), signed=True)', "return found"),
    "no parentheses": ('return Expression(f"({found.text})", found.width, "", found.signed, found.closed)', "return found"),
    "differences in a chain": ('CHAINS = ("&", "|", "^", "+")', 'CHAINS = ("&", "|", "^", "+", "-", ">>", "<<")'),
    "the last of the conditions first": ("for row, body in reversed(list(zip(rows, bodies, strict=True))):", "for row, body in zip(rows, bodies, strict=True):"),
    "bits of a pattern": ("pattern.replace('-', '')", "pattern.replace('-', '0')[-len(pattern.replace('-', '')):]"),
    "decisions of the same bits in any order": ("any(end > low for (_, end), (low, _) in itertools.pairwise(ends))", "False"),
    "what was before a decision": ("before = Decision(statement.selector, ways, last)", "before = Decision(statement.selector, ways, ways[-1][1])"),
    "the other branch": ("{then.text} : {otherwise.text}", "{otherwise.text} : {then.text}"),
    "all of no bits": ('return Expression("1\'h1", 1, closed=True)  # all of no bits', 'return Expression("1\'h0", 1, closed=True)'),
    "a write of the whole word": ("f\"{word}[{high - 1}:{low}]\"", "word"),
    "a read in every cycle": ("nodes = [node if enable == \"1'h1\" else If(enable, [node])]", "nodes = [node]"),
    "no value at power-up": ("_constant(wire.init)};\" for wire in self.registers]", "_constant('0' * wire.width)};\" for wire in self.registers]"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_writer_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(str(writer.__file__)).read_text()
    old, new = FAULTS[fault]
    assert source.count(old) == 1, fault
    module = types.ModuleType("kappa_rtl.hw.verilog.mutated")
    module.__file__, module.__package__ = writer.__file__, "kappa_rtl.hw.verilog"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source.replace(old, new), "mutated", "exec"), module.__dict__)
    monkeypatch.setattr(hw_export, "write_verilog", module.write)
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            if run(text(seed), seed, "2012", folder) != simulated(seed):
                return
        except (AssertionError, ValueError):
            return  # what cannot be compiled is found too
    pytest.fail("nobody noticed")
