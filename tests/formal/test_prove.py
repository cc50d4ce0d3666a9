"""What is proved holds, and no proof accepts a fault: `make prove` prints the same as a table."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from formal import runner
from formal.__main__ import STEMS, proofs
from formal.harness import Identity, Proof
from support.mutants import generator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(runner.missing() is not None, reason=str(runner.missing()))]
PROOFS = proofs([])
CASES = [pytest.param(proof, id=f"{proof.name}: {proof.what}"[:90]) for proof in PROOFS]
REJECTED = [(proof, mutant) for proof in PROOFS for mutant in proof.mutants]
FAULTS = [mutant for _, mutant in REJECTED]


@pytest.mark.parametrize("proof", CASES)
def test_holds(proof: Proof | Identity, tmp_path: Path) -> None:
    verdict = runner.run(proof, tmp_path / "proof")
    assert verdict.status == "PASS", f"{verdict.failed}: {verdict.folder}"


@pytest.mark.parametrize("number", range(len(REJECTED)), ids=[f"{proof.name}: {mutant.what}" for proof, mutant in REJECTED])
def test_rejects(number: int, tmp_path: Path) -> None:
    proof, mutant = REJECTED[number]
    assert isinstance(proof, Proof)
    package = tmp_path / f"prove_{number}"
    generator(mutant, package)
    verdict = runner.run(proof.refutation(), tmp_path / "proof", f"{package.name}.hw")
    assert verdict.status == "FAIL", f"{mutant.what}: {verdict.status}"
    assert verdict.failed


def test_every_stem_has_a_fault_that_it_rejects() -> None:
    for stem in STEMS:
        assert any(proof.mutants for proof in importlib.import_module(f"formal.prove_{stem}").PROOFS), stem
