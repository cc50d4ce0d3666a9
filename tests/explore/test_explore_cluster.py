"""A real scheduler, with workers in other processes: what they find is what one process finds, though one of them is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kappa_rtl.scripts.experiments import executors
from kappa_rtl.scripts.experiments.explore.run import explore
from kappa_rtl.scripts.experiments.pool import Task, compute
from kappa_rtl.scripts.settings import Settings

WORKERS = 3


def a_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and the processes of its workers, without anybody who would start them again."""
    address = f"tcp://127.0.0.1:{a_port()}"
    with contextlib.ExitStack() as stack:

        def start(*command: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{command[0]}-{len(os.listdir(folder))}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]], stdout=log, stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        start("dask_scheduler", "--host", address, "--no-dashboard", "--no-show")
        places = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder))
        yield address, [start("dask_worker", address, *places) for _ in range(WORKERS)]


def test_a_cluster_finds_the_same_though_a_worker_is_killed(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    space = {"weight": [6, 8, 10], "rounding": ["nearest", "residual:4"], "law": "stability_margin"}
    settings = Settings(tables={"training": {"steps": 120}, "explore": space})
    (tmp_path / "logs").mkdir()
    with cluster(tmp_path / "logs") as (address, workers):
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(WORKERS, timeout=60)
        out, killed = tmp_path / "out", []

        def kill() -> None:
            while len(list(out.glob("runs/*.json"))) < 5:
                time.sleep(0.01)
            killed.append(len(list(out.glob("runs/*.json"))))
            workers[0].send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        found = explore(settings, out, executor=address, seeds=3, tell=lambda text: None)
        killer.join(60)
        assert killed and killed[0] < 21 and workers[0].wait(60) == -signal.SIGKILL
    alone = explore(settings, tmp_path / "alone", seeds=3, tell=lambda text: None)
    assert [(one.point, one.scores) for one in found.trained] == [(one.point, one.scores) for one in alone.trained]


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{a_port()}"
    with pytest.raises(ValueError, match=f"executor must be the address of a scheduler that answers, not '{address}'"):
        list(compute([Task(i, str(i), divmod, (i, 3)) for i in range(2)], 2, "x", executor=address))


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"executor 'dask' must have Dask: pip install \"kappa-rtl\[cluster\]\""):
        executors.check("dask")


def die_once(path: str, number: int) -> int:
    """The run that takes its process along, the first time."""
    if number == 2 and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_always(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [Task(i, str(i), die_once, (str(tmp_path / "dead"), i)) for i in range(6)]
    assert dict(compute(tasks, 2, "x")) == {i: i * i for i in range(6)}
    assert "a worker died: the " in capsys.readouterr().err


def test_a_run_that_kills_every_worker_is_not_tried_for_ever() -> None:
    done: dict[int, int] = {}
    with pytest.raises(Exception, match="terminated abruptly"):
        done |= compute([Task(i, str(i), die_always, (i,)) for i in range(3)], 2, "x")
