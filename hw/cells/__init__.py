"""Components that a technology has as hardware of its own: multipliers, memories, carry chains, gates that stay as they are.

Each is an instance of the Verilog module beside it: plain Verilog, or with ``KAPPA_RTL_ECP5`` defined that family's cells.
Imports golden alone.
"""
