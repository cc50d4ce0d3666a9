"""Gates in a simulator: an adder of four bits counted by hand, and every run whose figures would mean nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.energy.account import PORTS, account
from kappa_rtl.hw.energy.library import Library
from kappa_rtl.hw.energy.mapping import mapped
from kappa_rtl.hw.energy.netlist import Gate, Netlist, Port
from kappa_rtl.hw.synth import synthesis
from kappa_rtl.hw.synth.targets import LIBERTY_PACKAGE
from kappa_rtl.sim import gates
from kappa_rtl.sim.dump import activity
from kappa_rtl.sim.exports import exported
from kappa_rtl.sim.gates import GateThrottle, Recorded, cells_of, power_up, registers_of, step_activity
from kappa_rtl.sim.runner import SimulationError

LIBERTY = Path(LIBERTY_PACKAGE[1])
needs_cells = pytest.mark.skipif(not LIBERTY.is_file(), reason=f"{LIBERTY_PACKAGE[2]} is not installed")

# ---------------------------------------------------------------- the adder

HALF = {"s": ("XOR2X1", "a", "b"), "c": ("AND2X2", "a", "b")}
FULL = {
    "x": ("XOR2X1", "a", "b"),
    "s": ("XOR2X1", "x", "d"),
    "g": ("AND2X2", "a", "b"),
    "p": ("AND2X1", "x", "d"),
    "c": ("OR2X1", "g", "p"),
}
LOGIC: dict[str, Callable[[int, int], int]] = {
    "XOR2X1": lambda a, b: a ^ b,
    "AND2X1": lambda a, b: a & b,
    "AND2X2": lambda a, b: a & b,
    "OR2X1": lambda a, b: a | b,
}
CYCLES = 300
BITS = 4


def adder() -> tuple[Netlist, dict[str, int]]:
    """Four bits and a carry into registers; each bit's adder is a part. And the nets by name."""
    nets = {"clk": 2}

    def net(name: str) -> int:
        return nets.setdefault(name, len(nets) + 2)

    a, b = (tuple(net(f"{word}{i}") for i in range(BITS)) for word in "ab")
    made = []
    for i in range(BITS):
        inputs = {"a": f"a{i}", "b": f"b{i}", "d": f"c{i - 1}"}
        for output, (cell, *pins) in (FULL if i else HALF).items():
            names = [inputs.get(pin, f"{pin}{i}") for pin in pins]
            made.append(Gate(cell, f"bit{i}", {"A": net(names[0]), "B": net(names[1]), "Y": net(f"{output}{i}")}))
    sums = [f"s{i}" for i in range(BITS)] + [f"c{BITS - 1}"]
    made += [Gate("DFFPOSX1", "out", {"CLK": 2, "D": net(name), "Q": net(f"q{i}")}) for i, name in enumerate(sums)]
    ports = (
        Port("clk", False, (2,)),
        Port("a", False, a),
        Port("b", False, b),
        Port("q", True, tuple(net(f"q{i}") for i in range(5))),
    )
    return Netlist("adder", ports, tuple(made)), nets


BENCH = """\
`timescale 1ns / 10ps
module bench;
  reg clk = 0;
  always #5 clk = ~clk;
  reg [3:0] a = 0, b = 0;
  wire [4:0] q;
  reg window = 0;
  integer random = 1;
  adder adder (.clk(clk), .a(a), .b(b), .q(q));
  always @(posedge clk) {{b, a}} <= $random(random);
{counters}
  initial begin
    repeat (3) @(negedge clk) $display("operands %d %d", a, b);
    $dumpfile("adder.vcd");
    $dumpvars(1, adder);
    #0.1 window = 1;
    repeat ({cycles}) @(negedge clk) $display("operands %d %d", a, b);
    #4.9 $dumpoff;
    $dumpflush;
{shown}
    $finish;
  end
endmodule
"""


def simulated(
    netlist: Netlist, folder: Path, *, delays: bool = True
) -> tuple[Path, dict[int, tuple[int, int]], list[tuple[int, int]]]:
    """The dump of the adder under random operands; rises and falls of each net as the bench itself counts them; the operands."""
    counters = "".join(
        f"  integer u{n} = 0, d{n} = 0;\n  always @(posedge adder.n{n}) if (window) u{n} = u{n} + 1;\n"
        f"  always @(negedge adder.n{n}) if (window) d{n} = d{n} + 1;\n"
        for n in netlist.nets
    )
    shown = "".join(f'    $display("count {n} %0d %0d", u{n}, d{n});\n' for n in netlist.nets)
    text = netlist.to_verilog() + BENCH.format(counters=counters, cycles=CYCLES, shown=shown)
    (folder / "bench.v").write_text(text)
    command = ["iverilog", "-g2012", *(["-gspecify"] if delays else []), "-s", "bench", "-o", "bench.vvp", "bench.v"]
    subprocess.run([*command, str(cells_of(LIBERTY))], cwd=folder, check=True, capture_output=True)
    done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, check=True, capture_output=True, text=True).stdout
    counted = {int(n): (int(up), int(down)) for n, up, down in re.findall(r"^count (\d+) (\d+) (\d+)$", done, re.MULTILINE)}
    operands = [(int(a), int(b)) for a, b in re.findall(r"^operands +(\d+) +(\d+)$", done, re.MULTILINE)]
    return folder / "adder.vcd", counted, operands


def by_hand(netlist: Netlist, nets: dict[str, int], operands: list[tuple[int, int]]) -> dict[int, list[int]]:
    """What each net settles at before the window and in each of its cycles, by the gates' truth tables."""
    found: dict[int, list[int]] = {net: [] for net in netlist.nets if net != nets["clk"]}
    for a, b in operands:
        values = {nets[f"a{i}"]: a >> i & 1 for i in range(BITS)} | {nets[f"b{i}"]: b >> i & 1 for i in range(BITS)}
        for gate in netlist.gates:
            if gate.cell in LOGIC:
                values[gate.pins["Y"]] = LOGIC[gate.cell](values[gate.pins["A"]], values[gate.pins["B"]])  # type: ignore[index]
        for net, value in values.items():
            found[net].append(value)
    for gate in netlist.gates:
        if gate.cell == "DFFPOSX1":  # shows in a cycle what its input was at the end of the one before
            found[gate.pins["Q"]] = found[gate.pins["D"]][:-1]  # type: ignore[index]
    return {net: values[-CYCLES - 1 :] for net, values in found.items()}


@needs_cells
@pytest.mark.icarus
def test_the_adders_toggles_counted_by_hand(tmp_path: Path) -> None:
    """All changes as counters in the bench have them; those that settle as the truth tables have them."""
    netlist, nets = adder()
    path, counted, operands = simulated(netlist, tmp_path)
    library = Library.read(LIBERTY)
    found = activity(path, netlist.nets, registers_of(netlist, library), 2)
    assert found.cycles == CYCLES == len(operands) - 3
    assert {n: (up, down) for n, up, down in zip(netlist.nets, found.rises, found.falls, strict=True)} == counted
    assert counted[nets["clk"]] == (CYCLES, CYCLES)
    for net, values in by_hand(netlist, nets, operands).items():
        place = netlist.nets.index(net)
        assert found.settled_rises[place] == sum(now > before for before, now in pairwise(values))
        assert found.settled_falls[place] == sum(now < before for before, now in pairwise(values))
        if net in found.registers:
            register = found.registers.tolist().index(net)
            assert [before != now for before, now in pairwise(values)] == found.changes[:, register].tolist()
    assert found.toggles - found.settled().toggles - 2 * CYCLES > 100  # glitches


@needs_cells
@pytest.mark.icarus
def test_what_settles_is_the_same_without_delays(tmp_path: Path) -> None:
    """There nothing glitches for any time, and what changes and changes back at once is not a change."""
    netlist, _ = adder()
    found = []
    for delays in (True, False):
        folder = tmp_path / str(delays)
        folder.mkdir()
        path, *_ = simulated(netlist, folder, delays=delays)
        found.append(activity(path, netlist.nets, registers_of(netlist, Library.read(LIBERTY)), 2))
    real, ideal = found
    assert ideal.toggles == ideal.settled().toggles + 2 * CYCLES
    assert real.settled_rises.tolist() == ideal.settled_rises.tolist() and (real.changes == ideal.changes).all()


def tables_of(cell: str, pin: str, group: str, edge: str) -> list[tuple[str, list[float], list[float], np.ndarray[Any, Any]]]:
    """Tables of a pin, read from the text of the library: the related pin, both axes, the values."""
    text = LIBERTY.read_text()
    body = re.search(rf"^cell \({cell}\) {{.*?^}}", text, re.DOTALL | re.MULTILINE)
    assert body
    pins = re.search(rf"^  pin\({pin}\)  {{.*?^  }}", body[0], re.DOTALL | re.MULTILINE)
    assert pins
    found = []
    for block in re.findall(rf"^    {group}\(\) {{.*?^    }}", pins[0], re.DOTALL | re.MULTILINE):
        table = re.search(rf"{edge}\(\w+\) {{(.*?)}}", block, re.DOTALL)
        related = re.search(r'related_pin : "(\w+)"', block)
        if table:
            axes = [[float(x) for x in axis.split(",")] for axis in re.findall(r'index_\d \("(.*?)"\)', table[1])]
            values = re.search(r"values \((.*?)\);", table[1], re.DOTALL)
            assert values
            numbers = [float(x) for x in re.findall(r"-?[\d.]+", values[1])]
            loads, times = axes if len(axes) == 2 else ([0.0], axes[0])
            found.append((related[1] if related else "", loads, times, np.array(numbers).reshape(len(loads), len(times))))
    return found


def looked_up(table: tuple[str, list[float], list[float], np.ndarray[Any, Any]], load: float, time: float) -> float:
    """A value between those of a table, by numpy's own interpolation, which holds the ends."""
    _, loads, times, values = table
    return float(np.interp(load, loads, [np.interp(time, times, row) for row in values]))


@needs_cells
@pytest.mark.icarus
def test_the_adders_energy_counted_by_hand(tmp_path: Path) -> None:
    """Gate after gate from the inputs on, with tables read from the library's text and the counts of the bench."""
    netlist, _nets = adder()
    path, counted, _ = simulated(netlist, tmp_path)
    library = Library.read(LIBERTY)
    text = LIBERTY.read_text()

    def capacitance(cell: str, pin: str, edge: str) -> float:
        found = re.search(
            rf"^cell \({cell}\) .*?^  pin\({pin}\) .*?{edge}_capacitance : ([\d.]+);", text, re.DOTALL | re.MULTILINE
        )
        assert found
        return float(found[1])

    outputs = ("Y", "Q")
    sinks = [(gate, pin, net) for gate in netlist.gates for pin, net in gate.pins.items() if pin not in outputs]
    load = {
        net: sum(
            (capacitance(gate.cell, pin, "rise") + capacitance(gate.cell, pin, "fall")) / 2
            for gate, pin, at in sinks
            if at == net
        )
        for net in netlist.nets
    }
    time = dict.fromkeys(netlist.nets, 0.06)
    for gate in (*netlist.gates[-BITS - 1 :], *netlist.gates[: -BITS - 1]):  # registers, then gates in their order
        output = next(pin for pin in gate.pins if pin in outputs)
        net = int(gate.pins[output])
        edges = [
            looked_up(table, load[net], time[int(gate.pins[table[0]])])
            for edge in ("rise_transition", "fall_transition")
            for table in tables_of(gate.cell, output, "timing", edge)
        ]
        time[net] = sum(edges) / len(edges)

    clock, data, driven = 0.0, 0.0, 0.0
    for gate in netlist.gates:
        for pin, at in gate.pins.items():
            net = int(at)
            inside = 0.0
            for edge, changes in zip(("rise_power", "fall_power"), counted[net], strict=True):
                tables = tables_of(gate.cell, pin, "internal_power", edge)
                causes = [sum(counted[int(gate.pins[table[0]])]) if table[0] else 1 for table in tables]
                for table, cause in zip(tables, causes, strict=True):
                    slope = time[int(gate.pins[table[0]])] if table[0] else time[net]
                    inside += changes * cause / sum(causes) * looked_up(table, load[net], slope)
            charge = 0.0
            if pin not in outputs:
                up, down = counted[net]
                charge = (up * capacitance(gate.cell, pin, "rise") + down * capacitance(gate.cell, pin, "fall")) * 1.8**2 / 2
            if pin == "CLK":
                clock += inside + charge
            else:
                data, driven = data + inside, driven + charge
    found = account(netlist, library, activity(path, netlist.nets, registers_of(netlist, library), 2))
    assert sum(part.clock for part in found.values()) == pytest.approx(clock, rel=1e-6)
    assert sum(part.internal for part in found.values()) == pytest.approx(data, rel=1e-3)  # transitions settle to 1e-4 ns
    assert sum(part.load for part in found.values()) == pytest.approx(driven, rel=1e-6)
    assert clock / 5 / CYCLES == pytest.approx(0.207, abs=0.001)
    assert found.keys() == {"bit0", "bit1", "bit2", "bit3", "out", PORTS}


@needs_cells
@pytest.mark.skipif(synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout")
def test_mapped_cells_know_their_parts() -> None:
    text = """
module pair(input clk, input [1:0] a, output reg s);
  wire x;
  half inner (.a(a[0]), .b(a[1]), .o(x));
  always @(posedge clk) s <= ~x;
endmodule
module half(input a, input b, output o);
  assign o = a & b;
endmodule
"""
    netlist = Netlist.of_json(mapped(text, "pair", LIBERTY), "pair")
    assert {gate.part for gate in netlist.gates} == {"control", "inner"}
    assert {gate.part for gate in netlist.gates if gate.cell.startswith("DFF")} == {"control"}


@needs_cells
@pytest.mark.icarus
@pytest.mark.parametrize("powered", [False, True])
def test_an_undefined_register_stays_so_where_the_gates_clear_it_with_itself(powered: bool, tmp_path: Path) -> None:
    """A bit of the root's counter as Yosys maps it: zero comes of s & !s, which a simulator does not know of an X."""
    gates_of_it = (
        Gate("OAI21X1", "", {"A": "0", "B": "1", "C": 3, "Y": 4}),  # !((running | looks) & s)
        Gate("OAI21X1", "", {"A": "0", "B": 3, "C": 4, "Y": 5}),
        Gate("INVX1", "", {"A": 5, "Y": 6}),  # (running | s) & that
        Gate("DFFPOSX1", "", {"CLK": 2, "D": 6, "Q": 3}),
    )
    netlist = Netlist("counter", (Port("clk", False, (2,)), Port("s", True, (3,))), gates_of_it)
    bench = """
module bench;
  reg clk = 0;
  wire s;
  always #5 clk = ~clk;
  counter counter (.clk(clk), .s(s));
  initial #200 begin $display("s is %b", s); $finish; end
endmodule
"""
    (tmp_path / "bench.v").write_text(netlist.to_verilog(*(power_up([3], 0) if powered else ())) + bench)
    command = ["iverilog", "-g2012", "-gspecify", "-s", "bench", "-o", "bench.vvp", "bench.v", str(cells_of(LIBERTY))]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert f"s is {'0' if powered else 'x'}" in done.stdout


# ---------------------------------------------------------------- dumps that mean nothing

DUMP = """\
$timescale 10ps $end
$scope module dut $end
$var wire 1 ! n2 $end
$var wire 1 " n3 $end
$upscope $end
$enddefinitions $end
#500
$dumpvars
0!
0"
$end
#1000
1!
#1010
1"
#1500
0!
#2000
1!
#2030
0"
#2040
1"
#2050
0"
#2060
0"
#2500
0!
#2990
$dumpoff
x!
x"
$end
"""


def test_a_dump_is_counted(tmp_path: Path) -> None:
    """One change in the first cycle, three of which one stays in the second; and a line that is no change."""
    path = tmp_path / "activity.vcd"
    path.write_text(DUMP)
    found = activity(path, [2, 3], [3], 2)
    assert (found.cycles, found.rises.tolist(), found.falls.tolist()) == (2, [2, 2], [2, 2])
    assert (found.settled_rises.tolist(), found.settled_falls.tolist()) == ([0, 1], [0, 1])
    assert found.changes.tolist() == [[True], [True]] and found.before.tolist() == [False]
    assert found.values((3,)).tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("old", "new", "nets", "message"),
    [
        ("", "", [2, 3, 77, 78], r"^2 nets of the netlist are not in the dump, n77 the first of them$"),
        ('#2030\n0"', '#2030\nx"', [2, 3], r"^net n3 is undefined in the window$"),
        ('0"\n$end', 'x"\n$end', [2, 3], r"^net n3 is undefined in the window$"),
        ('0"\n$end', "$end", [2, 3], r"^the dump must begin with a value of every net$"),
        ("$dumpoff", "", [2, 3], r"^the dump ends in the midst of the window$"),
        ("$enddefinitions $end\n", "", [2, 3], r"^the dump has no end of its definitions$"),
        ("#500", "#600", [2, 3], r"^the clock must rise and fall once a cycle in the dump, not 2 and 2 times in 0$"),
        ("10ps", "1ns", [2, 3], r"^the dump must count time in 10ps, not 1ns$"),
    ],
)
def test_a_dump_that_means_nothing(tmp_path: Path, old: str, new: str, nets: list[int], message: str) -> None:
    path = tmp_path / "activity.vcd"
    path.write_text(DUMP.replace(old, new, 1) if old else DUMP)
    with pytest.raises(SimulationError, match=message):
        activity(path, nets, [], 2)


# ---------------------------------------------------------------- runs that mean nothing

SMALL = ThrottleConfig.stability_margin(
    elements=8,
    eta=0.5,
    lanes=2,
    mantissa_bits=8,
    exponent_bits=6,
    step_bits=9,
    gradient="SQ2.6",
    weight="SQ1.5",
    update="SQ1.7",
    eps=Fraction(1, 1 << 20),
)
THETA = np.arange(8) - 4
STEP = Recorded(7, (THETA, THETA), (THETA * 9, THETA * 11), None, Fraction(1, 2))
NOTHING = Netlist("throttle", (), ())


def unit(answer: Callable[[Any], Any]) -> Any:
    """Golden in the place of the gates, whose records become ``answer``'s."""

    class Other(Throttle):
        def __init__(self, config: ThrottleConfig, weights: Any, *_: Any, **__: Any) -> None:
            super().__init__(config, weights, codes=True)

        def __enter__(self) -> Other:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def step(self, *args: Any, **options: Any) -> Any:
            return answer(super().step(*args, **options))

    return Other


def run(step: Recorded, tmp_path: Path) -> None:
    step_activity(SMALL, step, NOTHING, Library("none", 1.8), tmp_path / "cells.v", tmp_path)


def test_a_weight_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(record: Any) -> Any:
        return replace(record, theta=record.theta + (np.arange(8) == 3))

    monkeypatch.setattr(gates, "GateThrottle", unit(wrong))
    with pytest.raises(SimulationError, match=r"^the netlist must be the golden model: step 0, theta\[3\]: golden "):
        run(STEP, tmp_path)


def test_a_register_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(record: Any) -> Any:
        return replace(record, registers=replace(record.registers, B=record.registers.B + record.step))

    monkeypatch.setattr(gates, "GateThrottle", unit(wrong))
    with pytest.raises(SimulationError, match=r"^the netlist must be the golden model: step 1, B: golden "):
        run(STEP, tmp_path)


def test_a_run_in_which_no_weight_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "GateThrottle", unit(lambda record: record))
    with pytest.raises(SimulationError, match=r"^step 7 moves no weight, and what such a step costs is no figure"):
        run(replace(STEP, gradients=(THETA * 9, THETA * 0)), tmp_path)


@pytest.mark.icarus
@pytest.mark.slow
@pytest.mark.ci
def test_a_step_that_hangs(tmp_path: Path) -> None:
    """A unit that does nothing."""
    numbers = iter(range(2, 10**6))
    ports = tuple(
        Port(
            port["name"],
            port["direction"] == "output",
            tuple("0" if port["direction"] == "output" else next(numbers) for _ in range(port["width"])),
        )
        for port in exported(SMALL, streaming=True)[1]["ports"]
    )
    (tmp_path / "cells.v").write_text("")
    netlist = Netlist("throttle", ports, ())
    with (
        GateThrottle(SMALL, THETA, netlist, Library("none", 1.8), tmp_path / "cells.v", window=1, folder=tmp_path) as hung,
        pytest.raises(SimulationError, match=r"^step 0: the unit did not finish within \d+ cycles$"),
    ):
        hung.step(THETA, codes=True)


def test_a_library_without_the_verilog_of_its_cells(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^liberty must have the Verilog of its cells beside it, '.*cells\.v', which is no file"
    ):
        cells_of(tmp_path / "cells.lib")
