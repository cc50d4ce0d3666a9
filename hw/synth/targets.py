"""What a design can be synthesised for: the recipe, what its cells are called, and the tool that places or times them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LIBERTY_PACKAGE", "TARGETS", "Cells", "Target"]


@dataclass(frozen=True)
class Target:
    """One technology. Cells are counted by patterns of their names, each with how many units a cell stands for."""

    name: str
    recipe: str  #: Yosys' command
    unit: str  #: what the size is counted in
    size: Mapping[str, int] = field(default_factory=dict)  #: none: the area that the cell library gives
    ff: str = ""
    dsp: Mapping[str, int] = field(default_factory=dict)
    block: Mapping[str, int] = field(default_factory=dict)
    distributed: Mapping[str, int] = field(default_factory=dict)
    define: str = ""  #: chooses the target's own multiplier and memory blocks in the Verilog
    keeps: str = ""  #: modules that Yosys shall not flatten before the recipe is done
    placer: tuple[str, ...] = ()  #: nextpnr and its options
    finish: tuple[str, ...] = ()  #: Yosys' commands that make of the flattened netlist what nextpnr takes
    files: Mapping[str, str] = field(default_factory=dict)  #: texts by name, which these commands and the options name


LUTS = {r"LUT[1-6]": 1, r"SRL.*": 1}
NEXUS = Path(__file__).with_name("nexus.v").read_text()
PINS = {"clk": "E16", "si": "F16", "so": "G15"}
"""Three pins of the Nexus, whose nextpnr places no pin by itself; any would do."""

LIBERTY_PACKAGE = ("osu018", "/usr/share/qflow/tech/osu018/osu018_stdcells.lib", "qflow-tech-osu018")
"""The cell library of the ASIC target: its name, where Debian's package puts it, that package."""

TARGETS = {
    target.name: target
    for target in (
        Target(
            "ecp5",
            "synth_ecp5",
            "LUT4",
            size={"LUT4": 1, "CCU2C": 2},  # a carry cell holds two look-up tables
            ff="TRELLIS_FF",
            dsp={"MULT18X18D": 1},
            block={"DP16KD": 1},
            distributed={"TRELLIS_DPR16X4": 1},
            define="KAPPA_RTL_ECP5",
            placer=(
                *("nextpnr-ecp5", "--45k", "--package", "CABGA381", "--speed", "6"),
                *("--freq", "350", "--placer", "static", "--timing-allow-fail", "--lpf-allow-unconstrained"),
            ),
        ),
        Target(
            "ice40",
            "synth_ice40",  # never -dsp: it turns a product register without reset into the constant 0
            "LUT4",
            size={"SB_LUT4": 1},
            ff="SB_DFF.*",
            block={"SB_RAM40_4K.*": 1},
            placer=(
                *("nextpnr-ice40", "--hx8k", "--package", "ct256", "--router", "router2"),
                *("--freq", "200", "--timing-allow-fail", "--pcf-allow-unconstrained"),
            ),
        ),
        Target(
            "nexus",
            "synth_nexus -noiopad",
            "LUT4",
            size={"LUT4": 1, "CCU2": 2, "WIDEFN9": 2},
            ff="FD1P3.X",
            dsp={"MULT18X18": 1, "MULT18X36": 2, "MULT36X36": 4},
            block={"P?DP(SC)?16K": 1},
            distributed={"DPR16X4": 1},
            keeps="*multiply*",  # in a flattened unit Yosys 0.70 takes the wrong registers into its DSP blocks
            placer=(
                *("nextpnr-nexus", "--device=LIFCL-40-9BG400C", "--pdc", "pins.pdc"),
                *("--freq", "350", "--timing-allow-fail"),
            ),
            finish=(
                *("techmap -map nexus.v t:VLO t:VHI", "opt_clean", "techmap -max_iter 1 -map nexus.v t:CCU2", "opt_clean"),
                "iopadmap -bits -inpad IB O:I -outpad OB I:O",
                "techmap -max_iter 1 -map nexus.v i:clk %co1 t:IB %i",
                "hilomap -singleton -hicell VHI Z -locell VLO Z",
            ),
            files={
                "nexus.v": NEXUS,
                "pins.pdc": "".join(f"ldc_set_location -site {{{site}}} [get_ports {port}]\n" for port, site in PINS.items()),
            },
        ),
        Target(
            "machxo2",
            "synth_lattice -family xo2",
            "LUT4",
            size={"LUT4": 1, "CCU2D": 2},
            ff="TRELLIS_FF",
            block={"DP8KC|PDPW8KC": 1},
            distributed={"TRELLIS_DPR16X4": 1},
            # The largest of this fabric in the package, a MachXO3: of the MachXO2 it has the 1200 alone.
            placer=(
                *("nextpnr-machxo2", "--device=LCMXO3LF-6900C-6BG256C", "--lpf", "clock.lpf"),
                *("--freq", "200", "--timing-allow-fail", "--lpf-allow-unconstrained"),
            ),
            files={"clock.lpf": 'LOCATE COMP "clk" SITE "C8";\n'},  # from other pins it finds no way with some seeds
        ),
        Target(
            "gatemate",
            "synth_gatemate -luttree -nomx8 -noiopad -noclkbuf",
            "L2T4",
            size={"CC_LUT[12]|CC_L2T4|CC_MX2|CC_ADDF": 1, "CC_L2T5|CC_MX4": 2},  # in halves of a CPE
            ff="CC_DFF",
            dsp={"CC_MULT": 1},
            block={"CC_BRAM_20K": 1, "CC_BRAM_40K": 2},
            placer=(
                *("nextpnr-himbaechel-gatemate", "--device=CCGM1A1", "--vopt", "allow-unconstrained"),
                *("--freq", "200", "--timing-allow-fail"),
            ),
            finish=("iopadmap -bits -inpad CC_IBUF Y:I -outpad CC_OBUF A:O", "clkbufmap -buf CC_BUFG O:I"),
        ),
        Target(
            "gowin",
            "synth_gowin -family gw2a -noiopads",
            "LUT4",
            size={"LUT[1-4]|ALU": 1},
            ff="DFF.*",
            dsp={"MULT9X9|MULT18X18": 1, "MULT36X36": 4},
            block={"(SP|SDP|DP)X?9?B?": 1},
            distributed={"RAM16.*": 1},
        ),
        Target(
            "xilinx",
            "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf",  # thousands of pads break its mapper
            "LUT6",
            size=LUTS,
            ff="FD[RSCP]E.*",
            dsp={"DSP48E1": 1},
            block={"RAMB36E1": 2, "RAMB18E1": 1},
            distributed={r"RAM\d+.*": 1},
        ),
        Target("osu018", "synth -flatten", "um2", ff="DFF.*", block={".*_memory": 1}),
    )
}
"""The targets that are known, by name."""


@dataclass(frozen=True)
class Cells:
    """What a netlist uses, by the target's own cell names; ``area`` in um2 where a cell library says it."""

    by_type: Mapping[str, int] = field(default_factory=dict)
    target: Target = TARGETS["ecp5"]
    area: float | None = None

    def _of(self, patterns: Mapping[str, int]) -> int:
        return sum(
            weight * count
            for pattern, weight in patterns.items()
            for name, count in self.by_type.items()
            if re.fullmatch(pattern, name)
        )

    @property
    def size(self) -> int:
        """Look-up tables, of as many inputs as the target's have; or the area."""
        return self._of(self.target.size) if self.area is None else round(self.area)

    @property
    def logic(self) -> int:
        """Cells that switch: look-up tables and registers; for an ASIC every cell of the library."""
        if self.area is None:
            return self.size + self.ff
        return sum(count for name, count in self.by_type.items() if not name.startswith("$"))

    @property
    def ff(self) -> int:
        return self._of({self.target.ff: 1})

    @property
    def dsp(self) -> int:
        """Multiplier blocks."""
        return self._of(self.target.dsp)

    @property
    def block(self) -> int:
        """Block memories: of 18 kbit on ECP5 and Xilinx, 4 kbit on iCE40; for an ASIC memories left to a macro."""
        return self._of(self.target.block)

    @property
    def distributed(self) -> int:
        """Memories in the place of look-up tables, and not among them."""
        return self._of(self.target.distributed)


def liberty(given: Path | None = None) -> Path:
    """The cell library of the ASIC target.

    Raises:
        ValueError: there is none.
    """
    name, usual, package = LIBERTY_PACKAGE
    path = given or Path(usual)
    if not path.is_file():
        raise ValueError(
            f"liberty must be the {name} cell library, not {str(path)!r}, which is no file: "
            f"Debian's package {package} holds {Path(usual).name} (apt-get install {package}); name it with --liberty"
        )
    return path
