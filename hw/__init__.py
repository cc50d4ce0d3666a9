"""The throttle as hardware: Amaranth components, one a file, and their Verilog export."""
