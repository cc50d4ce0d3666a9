"""A co-simulation that is over soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kappa_rtl.scripts.experiments.cosim.job import Job


def job(tmp_path: Path, **changes: Any) -> Job:
    """A small job, without the narrow runs."""
    path = tmp_path / "job.toml"
    path.write_text("[narrow]\n[run]\nexperiment = 'synthetic'\n[training]\nsteps = 12\n[throttle]\nlanes = 3\n")
    return Job.read(path, **changes)
