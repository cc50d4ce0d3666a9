"""The exported Verilog in a simulator: as a unit that trains (``cosim``), and under tests.

``runner`` builds and starts simulators; ``cosim`` with ``server`` and ``harness.v`` drives whole steps through one. In
``testbench``, ``benches`` and ``stress`` components are tested. Imports hw and golden.
"""
