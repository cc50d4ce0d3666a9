"""A LiteX system around the unit: VexRiscv, ROM and SRAM on Wishbone, and LiteX's DMA for the three vectors.

::

    kappa-rtl export --config examples/soc/throttle.toml --bus axi -o throttle_axi.v
    python examples/soc/system.py throttle_axi.v build/soc      # writes build/soc/system.v and build/soc/generated/

The ROM's contents are `system_rom.init` beside the Verilog, read as a simulation starts: a line a word, in hexadecimal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from litex.build.generic_platform import Pins, Subsignal
from litex.build.sim import SimPlatform
from litex.soc.cores.dma import WishboneDMAReader, WishboneDMAWriter
from litex.soc.integration import export
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect import stream, wishbone
from migen.genlib.io import CRG

sys.path.append(str(Path(__file__).resolve().parents[1] / "litex"))
from throttle import Throttle

WORD = 32
ROM = 0x8000
IO = [
    ("sys_clk", 0, Pins(1)),
    ("sys_rst", 0, Pins(1)),
    # What LiteX calls a simulated UART: bytes each way, with valid and ready.
    (
        "serial",
        0,
        *(Subsignal(f"source_{name}", Pins(width)) for name, width in (("valid", 1), ("ready", 1), ("data", 8))),
        *(Subsignal(f"sink_{name}", Pins(width)) for name, width in (("valid", 1), ("ready", 1), ("data", 8))),
    ),
]


class System(SoCCore):  # type: ignore[misc]
    """The system.

    Args:
        verilog: what ``kappa-rtl export --bus axi`` wrote.
    """

    def __init__(self, verilog: str | Path) -> None:
        platform = SimPlatform("SIM", IO)
        super().__init__(
            platform,
            clk_freq=int(100e6),
            cpu_type="vexriscv",
            integrated_rom_size=ROM,
            integrated_rom_init=[0],  # so that the Verilog reads a file
            integrated_sram_size=0x4000,
            uart_name="sim",
            timer_uptime=True,
        )
        self.crg = CRG(platform.request("sys_clk"), rst=platform.request("sys_rst"))
        self.throttle = unit = Throttle(verilog, platform)
        self.bus.add_slave("throttle", unit.bus, SoCRegion(origin=0x9000_0000, size=0x1000, cached=False))
        self.irq.add("throttle")

        def bus(name: str) -> Any:
            made = wishbone.Interface(data_width=WORD, address_width=self.bus.address_width, addressing="word")
            self.bus.add_master(name, made)
            return made

        # To LiteX's DMA "big" is a word as it is; "little", which it takes if nothing is said, reverses the bytes.
        # A word has the element of the lower index in its lower half, and a beat the word of the lower address: the converters'
        # order. The `last` of a reader is on the last word that it was told to read, and becomes the TLAST of the last beat.
        for name, vector in (("gradient", unit.gradient), ("weights", unit.weights)):
            dma = WishboneDMAReader(bus(name), endianness="big", with_csr=True)
            converter = stream.Converter(WORD, len(vector.data))
            self.add_module(f"{name}_dma", dma)
            self.add_module(f"{name}_converter", converter)
            self.comb += [dma.source.connect(converter.sink), converter.source.connect(vector, omit={"valid_token_count"})]
        self.updated_dma = WishboneDMAWriter(bus("updated"), endianness="big", with_csr=True)
        self.updated_converter = stream.Converter(len(unit.updated.data), WORD)
        self.comb += [
            unit.updated.connect(self.updated_converter.sink, keep={"valid", "ready", "last", "data"}),
            self.updated_converter.source.connect(self.updated_dma.sink, omit={"valid_token_count"}),
        ]


def main(verilog: str, folder: str) -> None:
    """Write the system's Verilog with what its memories read, its C headers, and the list of all Verilog sources.

    LiteX's own builder would also prepare its BIOS, for which it wants two more packages.
    """
    system = System(verilog)
    system.finalize()
    place = Path(folder)
    (place / "generated").mkdir(parents=True, exist_ok=True)
    made = system.platform.get_verilog(system, name="system")
    regions = system.mem_regions
    for name, text in {
        "system.v": made.main_source,
        **made.data_files,
        "sources.txt": "\n".join(["system.v", *(source for source, *_ in system.platform.sources)]),
        "generated/csr.h": export.get_csr_header(system.csr_regions, system.constants, csr_base=regions["csr"].origin),
        "generated/mem.h": export.get_mem_header(regions),
        "generated/soc.h": export.get_soc_header(system.constants),
        "generated/regions.ld": export.get_linker_regions(regions),
        "generated/output_format.ld": export.get_linker_output_format(system.cpu),
    }.items():
        (place / name).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
