"""The Verilog of a design: its netlist, its names, its statements, its text. Imports nothing of the project."""
