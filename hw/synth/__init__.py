"""What the hardware costs on an FPGA or in a cell library: synthesis, timing, memory traffic, and the tables of it.

Imports all other rooms of hw; no other room imports it.
"""
