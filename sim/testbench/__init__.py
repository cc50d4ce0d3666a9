"""What benches are made of: the bank of components, drivers, monitors, checkers of stream rules, scoreboards, a host on AXI.

Imports hw, golden and ``sim.runner``; no bench.
"""
