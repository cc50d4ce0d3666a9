"""The throttle as hardware: Amaranth components, one a file, and their Verilog export.

Each room builds on those before it: cells, lanes and scalar, units, bus, ``manifest`` and ``export``, synth. From golden they
import formats, configuration, register names and the atomic writer, never arithmetic.
"""
