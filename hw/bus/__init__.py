"""A unit on a bus: AXI4-Streams for its vectors, registers on AXI4-Lite for all else, and what is written of these registers.

Imports units, scalar and golden.
"""
