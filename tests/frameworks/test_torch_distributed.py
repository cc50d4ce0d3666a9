"""Processes that hold parts of one model: the same bits, however many they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")

SHAPES = [(5, 3), (7,), (4, 4), (2,), (9,), (3, 2)]
STEPS = 8


CASES: dict[str, tuple[Any, str]] = {
    "one format": ("sq16", "stability_margin"),
    "random": ("sq8_stochastic", "stability_margin"),
    # Patterns that name a tensor of one process alone.
    "several formats": (
        {"*": {"weight": "SQ3.9"}, "2": {"weight": "SQ3.5", "residual_bits": 3}, "4": {"gradient": "SQ6.4"}},
        "inverse_curvature",
    ),
    "a grid a tensor": ({"*": {"weight": "SQ2.8", "update": "SQ1.9"}, "1": {"scale": 3}, "4": {"scale": 1}}, "stability_margin"),
}


def work(rank: int, ranks: int, folder: str) -> None:
    """Train this process's slice of the tensors, and write it down, for each of the cases."""
    import torch.distributed as dist

    from kappa_rtl.torch import GlobalThrottle

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{ranks}", rank=rank, world_size=ranks)
    for name, (formats, law) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        everything = [torch.nn.Parameter(torch.randn(shape, generator=generator) / 2) for shape in SHAPES]
        curves = [torch.rand(shape, generator=generator) * 4 for shape in SHAPES]
        mine = range(rank * len(SHAPES) // ranks, (rank + 1) * len(SHAPES) // ranks)
        optimizer = torch.optim.SGD([(str(i), everything[i]) for i in mine], lr=0.9, momentum=0.5)
        throttle = GlobalThrottle(optimizer, formats=formats, law=law, process_group=dist.group.WORLD)
        rows = []
        for _ in range(STEPS):
            for i in mine:
                everything[i].grad = everything[i].detach() * curves[i]
            optimizer.step()
            rows.append([throttle.metrics()[f"throttle/{metric}"] for metric in ("alpha", "curvature", "norm_motion", "still")])
        theta = torch.cat([everything[i].detach().reshape(-1) for i in mine]).numpy()
        np.savez(f"{folder}/{name}-{ranks}-{rank}.npz", theta=theta, rows=np.array(rows))
    with pytest.raises(ValueError, match=r"^formats must name parameters, not 'x\*'"):  # in every process, so that none waits
        GlobalThrottle(torch.optim.SGD([everything[i] for i in mine]), formats={"x*": {}}, process_group=dist.group.WORLD)
    dist.destroy_process_group()


def test_one_two_and_three_processes_give_the_same_bits(tmp_path: Path) -> None:
    for ranks in (1, 2, 3):
        torch.multiprocessing.spawn(work, (ranks, str(tmp_path)), nprocs=ranks)
    for name in CASES:
        found = []
        for ranks in (1, 2, 3):
            parts = [np.load(tmp_path / f"{name}-{ranks}-{rank}.npz") for rank in range(ranks)]
            found.append(np.concatenate([part["theta"] for part in parts]))
            one = np.load(tmp_path / f"{name}-1-0.npz")["rows"]
            assert all(np.array_equal(part["rows"], one) for part in parts)
            assert one[:, 0].min() < 1, f"{name}: nothing was throttled"
        assert all(np.array_equal(theta, found[0]) for theta in found)
