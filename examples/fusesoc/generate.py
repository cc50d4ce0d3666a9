"""FuseSoC's generator: exports the unit of a configuration. Runs in an environment that has kappa-rtl and FuseSoC."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from fusesoc.capi2.generator import Generator

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import write

OPTIONS = {name: p.default for name, p in inspect.signature(write).parameters.items() if name not in ("config", "path")}
"""Parameters beside ``config``: what the export takes, with what it takes by default."""


class Export(Generator):
    """Parameters: ``config``, a TOML file with a table [throttle], relative to the core file that names it; and ``OPTIONS``."""

    def run(self) -> None:
        given: dict[str, Any] = dict(self.config or {})
        for name, value in given.items():
            if name not in ("config", *OPTIONS):
                raise ValueError(f"parameter must be one of config, {', '.join(OPTIONS)}, not {name!r}")
            if type(value) is not (kind := type(OPTIONS.get(name, ""))):
                raise ValueError(f"parameter {name} must be {'true or false' if kind is bool else 'text'}, not {value!r}")
        if "config" not in given:
            raise ValueError("parameter config must be given: a TOML file with a table [throttle]")
        file = Path(self.files_root) / given.pop("config")
        if not file.is_file():
            raise ValueError(f"parameter config must be a TOML file, not {str(file)!r}")
        config = ThrottleConfig.from_toml(file)
        name = given.setdefault("name", "throttle_axi" if given.get("bus") else "throttle")
        verilog, *others = write(config, Path(f"{name}.v"), **given)
        self.add_files([str(verilog)], file_type="verilogSource")
        constants = [{str(path): {"is_include_file": True}} for path in others if path.suffix == ".vh"]
        if constants:
            self.add_files(constants, file_type="verilogSource")


if __name__ == "__main__":
    export = Export()
    try:
        export.run()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {export.vlnv}: {error}") from None
    export.write()
