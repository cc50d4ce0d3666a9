"""cocotb's own runner, with nothing of kappa-rtl's: Icarus, and SystemVerilog. Run it beside first.v and second.v."""

from __future__ import annotations

from cocotb_tools.runner import get_runner

runner = get_runner("icarus")
runner.build(sources=["first.v", "second.v", "two.v"], hdl_toplevel="two", includes=["."], always=True)
runner.test(hdl_toplevel="two", test_module="test_two", test_dir=".")
