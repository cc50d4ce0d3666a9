"""Who imports whom: the arrows between the rooms run one way, and no two modules import each other, however far around.

Every import statement counts, those inside functions and those for type checkers too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from pathlib import Path

import pytest

from support import ROOT

FLOORS = ("golden", "hw", "sim", "scripts", "frameworks")
"""A floor imports only those before it."""

ROOMS = {
    "golden": (("golden",), ("golden.network", "golden.protocol"), ("golden.training",), ("golden.credit",)),
    "hw": (
        ("hw.cells", "hw.verilog"),
        ("hw.lanes", "hw.scalar"),
        ("hw.units",),
        ("hw.bus",),
        ("hw",),
        ("hw.synth",),
        ("hw.energy",),
    ),
    "sim": (("sim",), ("sim.testbench",), ("sim.benches",), ("sim.stress",)),
}
"""Inside a floor a room imports itself and the rooms before it; those that stand together do not import each other."""

SHARED = {"golden.config", "golden.files", "golden.formats", "golden.registers"}
"""What hardware takes from golden: formats, configuration, names of registers, and the one writer of files; no arithmetic."""


def modules() -> dict[str, Path]:
    found = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules of the package that a module names in its imports."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=module, names=names, level=level) if level:
                base = here[: len(here) - level + 1] + (module.split(".") if module else [])
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "kappa_rtl":
                base = module.split(".")[1:]
            case ast.Import(names=names):
                for alias in names:
                    assert not alias.name.startswith("kappa_rtl"), f"{name}: imports inside the package are relative"
                continue
            case _:
                continue
        for alias in names:
            inner = ".".join([*base, alias.name])
            yield inner if inner in MODULES else ".".join(base)


GRAPH = {name: {target for target in imported(name, path) if target} for name, path in MODULES.items()}


def room(name: str) -> str:
    """The folder of a module."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def test_the_graph_is_read() -> None:
    assert len(GRAPH) > 140 and sum(map(len, GRAPH.values())) > 450
    assert "hw.scalar.divider" in GRAPH["hw.scalar.unit"] and "golden.config" in GRAPH["hw.scalar.decide"]
    assert all(target in MODULES for targets in GRAPH.values() for target in targets)


def test_no_circle() -> None:
    try:
        tuple(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_floors_import_only_what_lies_below() -> None:
    level = {floor: i for i, floor in enumerate(FLOORS)}
    wrong = [
        f"{name} imports {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if level[target.split(".")[0]] > level[name.split(".")[0]]
    ]
    assert wrong == []


def test_hardware_shares_no_arithmetic_with_golden() -> None:
    found = {
        target for name, targets in GRAPH.items() if name.startswith("hw.") for target in targets if target.startswith("golden")
    }
    assert found <= SHARED


@pytest.mark.parametrize("floor", ROOMS)
def test_rooms_import_only_what_lies_before(floor: str) -> None:
    level = {name: i for i, together in enumerate(ROOMS[floor]) for name in together}
    assert set(level) == {room(name) for name in MODULES if name.split(".")[0] == floor}, "every room has its place"
    wrong = []
    for name, targets in GRAPH.items():
        for target in (target for target in targets if target.split(".")[0] == floor == name.split(".")[0]):
            here, there = room(name), room(target)
            if here != there and level[there] >= level[here]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_golden_draws_nothing() -> None:
    drawing = [name for name, path in MODULES.items() if name.startswith("golden") and "matplotlib" in imports_of(path)]
    assert drawing == []


def imports_of(path: Path) -> set[str]:
    """The top-level names that a file imports from elsewhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found


def test_a_long_file_says_why() -> None:
    """No file is longer than 500 lines but for a reason that its first paragraph gives, as "In one file: ..."."""
    silent = []
    for path in [*MODULES.values(), *sorted((ROOT / "tests").rglob("*.py"))]:
        text = path.read_text()
        if text.count("\n") > 500 and "In one file:" not in (ast.get_docstring(ast.parse(text)) or ""):
            silent.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert silent == []


def test_one_name_is_one_module() -> None:
    """A stem means the same thing everywhere, so no room has it twice."""
    for here, names in groupby(sorted(MODULES, key=room), key=room):
        stems = [name.rpartition(".")[2] for name in names]
        assert len(set(stems)) == len(stems), here
