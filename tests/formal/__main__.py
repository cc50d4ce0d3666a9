"""``make prove``: every proof and its mutants, as a table; ARGS="divider" only those with that in their name."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from amaranth.hdl import UnusedElaboratable

from support.mutants import generator

from . import runner
from .harness import Identity, Proof

STEMS = ["rounding", "random", "update", "norm", "cells", "sqrt", "divider", "scalar", "programs"]
STEMS += ["segments", "layout", "watchdog", "memory", "axi", "frames", "crossing", "decide", "step"]


def proofs(words: list[str]) -> list[Proof | Identity]:
    """All of them in which every word occurs."""
    found: list[Proof | Identity] = []
    for stem in STEMS:
        found += importlib.import_module(f"{__package__}.prove_{stem}").PROOFS
    return [proof for proof in found if all(word in f"{proof.name} {proof.what} {proof.kind}" for word in words)]


def method(proof: Proof | Identity) -> str:
    """How it is proved."""
    if proof.kind == "any state" and proof.depth == 1:
        return "all inputs"
    return {
        "induction": f"for ever (induction, k = {proof.depth})",
        "reset": "one reset, from any state",
        "bound": f"{proof.depth} cycles from reset",
        "any state": f"{proof.depth} cycles from any state",
        "identity": "as an identity",
    }[proof.kind]


def main() -> int:
    parser = argparse.ArgumentParser(prog="formal", description=__doc__)
    parser.add_argument("words", nargs="*", help="only proofs in whose name or text all of these occur")
    parser.add_argument("--out", type=Path, default=Path("build/prove"), help="where logs and traces go")
    parser.add_argument("--no-mutants", action="store_true", help="only the proofs")
    parser.add_argument("--markdown", action="store_true", help="the table as in docs/proofs-list.md")
    parser.add_argument("--jobs", "-j", type=int, default=1, help="proofs at a time")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for each proof")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UnusedElaboratable)  # some components are made only to read what they promise
    if reason := runner.missing():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    chosen = proofs(args.words)
    if not chosen:
        print("error: no proof has that in its name", file=sys.stderr)
        return 2
    out = args.out.resolve()
    wrong = []

    def work(job: tuple[int, Proof | Identity]) -> tuple[str, list[str]]:
        number, proof = job
        folder = out / f"{number:02}"
        verdict = runner.run(proof, folder, timeout=args.timeout)
        faults = []
        if verdict.status != "PASS":
            faults.append(f"{proof.name}: {proof.what}: {verdict.status} {verdict.failed}; log and trace in {folder}")
        rejected = 0
        mutants = () if args.no_mutants else proof.mutants
        for index, mutant in enumerate(mutants):
            with tempfile.TemporaryDirectory() as copies:
                package = Path(copies) / f"prove_{number}_{index}"
                generator(mutant, package)
                found = runner.run(proof.refutation(), folder / f"mutant{index}", f"{package.name}.hw", timeout=args.timeout)
            rejected += found.status == "FAIL"
            if found.status != "FAIL":
                faults.append(f"{proof.name}: mutant survives ({found.status}): {mutant.what}; log in {found.folder}")
        cells = [proof.name, proof.what, method(proof), verdict.status, f"{verdict.seconds:.1f} s"]
        cells.append(f"{rejected} of {len(mutants)}" if mutants else "")
        return f"| {' | '.join(cells)} |" if args.markdown else "  ".join(
            cell.ljust(width) for cell, width in zip(cells, (26, 92, 30, 5, 8, 8), strict=True)
        ), faults

    head = ["block", "what is proved", "how long it holds", "", "time", "mutants rejected"]
    if args.markdown:
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    with ThreadPoolExecutor(args.jobs) as pool:
        for line, faults in pool.map(work, enumerate(chosen)):
            print(line.rstrip(), flush=True)
            for fault in faults:
                print(f"    {fault}", flush=True)
            wrong += faults
    print(f"\n{len(chosen)} proofs, {len(wrong)} wrong" if wrong else f"\n{len(chosen)} proofs, all hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
