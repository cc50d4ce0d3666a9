"""Proofs about the components of `hw/`, by SymbiYosys and z3: `make prove`, or `python -m formal` in `tests/`."""
