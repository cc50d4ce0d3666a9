"""What a step costs in switching: the cells' energies, the netlist by parts, and the account of a run's activity.

Imports golden not at all, and of hw the room synth; no other room of hw imports it.
"""
