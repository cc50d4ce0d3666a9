"""Exported units, kept: generating the Verilog of a unit takes seconds, and the same code makes the same text."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import golden, hw
from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..hw.export import export
from . import cache


def exported(config: ThrottleConfig, *, streaming: bool = False) -> tuple[str, dict[str, Any]]:
    """The Verilog and the manifest of :func:`~kappa_rtl.hw.export.export`, from the cache if the same code made them before."""
    about = (config.to_table(), config.registers(), streaming, _makers())
    place = cache.root() / f"verilog-{hashlib.sha256(repr(about).encode()).hexdigest()[:20]}.json"
    try:
        kept = json.loads(cache.use(place).read_bytes())
        return kept["verilog"], kept["manifest"]
    except (FileNotFoundError, ValueError, KeyError):  # not there, or no file of ours
        pass
    verilog, manifest = export(config, streaming=streaming)
    cache.prepare()
    write_atomically(place, json.dumps({"verilog": verilog, "manifest": manifest}))
    cache.trim()
    return verilog, manifest


CODE = cache.code_digest(*(Path(str(package.__file__)).parent for package in (golden, hw)))
"""Of the generator as it was loaded: what is edited later makes the text of a later process, not of this one."""


@functools.cache
def _makers() -> tuple[str, ...]:
    """Who makes the text: the tools by version, and the code."""
    return (*(metadata.version(tool) for tool in ("kappa-rtl", "amaranth")), CODE)
