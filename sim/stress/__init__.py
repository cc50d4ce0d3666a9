"""Long and hard runs: soaks of millions of elements in compiled loops, injected faults, and the speed of a driven core.

Imports benches, testbench, ``sim.cosim``, hw and golden.
"""
