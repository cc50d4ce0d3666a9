"""The benches: a module for each component, with a function that makes it and cocotb tests that compare it with golden.

They run inside the simulator, started by :func:`~kappa_rtl.sim.testbench.bank.simulate`. Imports testbench, hw and golden.
"""
