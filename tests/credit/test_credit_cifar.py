"""CIFAR-10 from files of its published binary format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.credit.cifar import load, read
from kappa_rtl.golden.credit.samples import Data, Net
from kappa_rtl.scripts.experiments.credit.experiments import experiment_of
from kappa_rtl.scripts.main import main


def write(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Records of a label and 1024 red, green and blue pixels; ``pixels`` is (n, 3, 32, 32)."""
    path.write_bytes(b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, pixels, strict=True)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, n in (("data_batch_1.bin", 30), ("data_batch_4.bin", 20), ("test_batch.bin", 12)):
        write(tmp_path / name, rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n) % 10)
    return tmp_path


def test_every_byte_has_its_place(folder: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
    pixels, labels = read(folder / "data_batch_1.bin")
    assert np.array_equal(pixels.reshape(30, 3, 32, 32), first) and np.array_equal(labels, np.arange(30) % 10)


def test_the_data_are_scaled_by_the_training_set(folder: Path) -> None:
    x, y, test_x, test_y = load(folder)
    assert x.shape == (50, 3072) and test_x.shape == (12, 3072) and len(y) == 50 and len(test_y) == 12
    colours = x.reshape(50, 3, 1024)
    assert colours.mean(axis=(0, 2)) == pytest.approx(0, abs=1e-4) and colours.std(axis=(0, 2)) == pytest.approx(1, abs=1e-4)
    raw, raw_test = (read(folder / name)[0].astype(float) for name in ("data_batch_1.bin", "test_batch.bin"))
    # One affine map a colour, the same for both sets.
    slope = (raw[0, 5] - raw[1, 5]) / (x[0, 5] - x[1, 5])
    assert test_x[3, 9] == pytest.approx(x[0, 5] + (raw_test[3, 9] - raw[0, 5]) / slope, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1.bin", b"", "size must be a positive multiple of 3073 bytes, not 0"),
        ("data_batch_1.bin", bytes(3072), "size must be a positive multiple of 3073 bytes, not 3072"),
        ("test_batch.bin", bytes(3073) + b"\x0a" + bytes(3072), r"label must be from 0 to 9, not 10 \(record 1\)"),
        ("test_batch.bin", None, r"data must hold the file test_batch\.bin"),
    ],
)
def test_a_bad_file_is_named(folder: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["credit", "online", "--cifar", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "cifar: data must be a folder with data_batch_1.bin .. data_batch_5.bin" in done.output
    assert not (tmp_path / "out").exists()


PUBLISHED = {"online": "[0.312]", "frozen": "[0.287]", "main": "[0.592±0.004]", "depth": "[0.196]", "scan": "[0.283]"}
"""A published figure that each experiment shows on CIFAR-10, and not on digits."""


@pytest.mark.slow
@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_run_on_it(experiment: str, folder: Path) -> None:
    """The published sizes but for the width and the length; how long it will take is told before it begins."""
    sizes = ["--width", "8", "--epochs", "1", "--seed", "0"]
    depths = ["--depth", "2", "--depth", "4"] if experiment == "depth" else []
    command = ["credit", experiment, "--full", *sizes, *depths, "--jobs", "1", "--out", str(folder / "o")]
    done = CliRunner().invoke(main, [*command, "--cifar", str(folder)])
    assert done.exit_code == 0, done.output
    assert PUBLISHED[experiment] in done.output and re.search(r"runs: about \d+ s on this machine", done.output)
    assert (folder / "o" / "plot.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "o" / "results.json").read_text())
    assert "CIFAR-10" in results["title"] and results["configuration"]["epochs"] == 1
    again = CliRunner().invoke(main, command)
    assert PUBLISHED[experiment] not in again.output, "what was published of CIFAR-10 is not held against digits"


def test_other_files_are_other_data(folder: Path) -> None:
    """Results are kept by the content of the files, not by the folder's name."""

    def task(where: str) -> Any:
        return experiment_of("online", cifar=where).arms[0].task

    first = task(str(folder))
    assert first == task(str(folder / ".." / folder.name)), "by whatever name it is called"
    raw = bytearray((folder / "data_batch_4.bin").read_bytes())
    raw[100] ^= 1
    (folder / "data_batch_4.bin").write_bytes(raw)
    assert task(str(folder)) != first


def test_the_samples_are_counted_by_the_files(folder: Path) -> None:
    assert Data(name="cifar10", folder=str(folder)).size == 50 == len(load(folder)[0])
    assert Data(name="digits").size == 1438 == len(Data(name="digits").draw(0, Net()).x)
