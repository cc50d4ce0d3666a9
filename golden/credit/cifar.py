"""CIFAR-10 from a local copy in its published binary format.

A folder holds ``data_batch_1.bin`` .. ``data_batch_5.bin`` and ``test_batch.bin``; each is records of 3073 bytes, a label from 0
to 9 and 3072 pixels: 1024 of red, then green, then blue, row by row.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECORD = 3073
CLASSES = 10
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"


def read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of one file.

    Raises:
        ValueError: the file is missing, empty, no whole number of records, or has a label that is no class.
    """
    if not path.is_file():
        raise ValueError(f"data must hold the file {path.name}; there is none in {str(path.parent)!r}")
    raw = np.fromfile(path, np.uint8)
    if not raw.size or raw.size % RECORD:
        raise ValueError(f"{path}: size must be a positive multiple of {RECORD} bytes, not {raw.size}")
    records = raw.reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= CLASSES:
        at = int(np.argmax(labels >= CLASSES))
        raise ValueError(f"{path}: label must be from 0 to {CLASSES - 1}, not {labels[at]} (record {at})")
    return records[:, 1:], labels


def files(folder: str | Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Training pixels (n, 3072) and labels (n,), test pixels and labels. Any of the five training files may be missing, not all.

    Raises:
        ValueError: see :func:`read`; or there is no training file.
    """
    folder = Path(folder)
    found = [read(folder / name) for name in TRAIN if (folder / name).is_file()]
    if not found:
        raise ValueError(f"data must be a folder with {TRAIN[0]} .. {TRAIN[-1]} and {TEST}, not {str(folder)!r}")
    pixels, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixels, labels, *read(folder / TEST)


def digest(folder: str | Path) -> str:
    """What tells the content of a folder from another's: of the names and bytes of its files."""
    found = hashlib.sha256()
    for name in (*TRAIN, TEST):
        path = Path(folder) / name
        if path.is_file():
            found.update(f"{name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
    return found.hexdigest()


def size(folder: str | Path) -> int:
    """How many samples there are to train on, by the sizes of the files."""
    return sum((Path(folder) / name).stat().st_size for name in TRAIN if (Path(folder) / name).is_file()) // RECORD


def load(folder: str | Path) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """The same with inputs in float32, each colour with mean 0 and variance 1 over the training set."""
    pixels, labels, test, test_labels = files(folder)
    colours = pixels.reshape(len(pixels), 3, -1)
    mean = colours.mean(axis=(0, 2)).astype(np.float32)[:, None]
    spread = np.maximum(colours.std(axis=(0, 2)), 1e-6).astype(np.float32)[:, None]

    def scaled(raw: NDArray[np.uint8]) -> NDArray[Any]:
        inputs = raw.reshape(len(raw), 3, -1).astype(np.float32)
        inputs -= mean
        inputs /= spread
        return inputs.reshape(len(raw), -1)

    return scaled(pixels), labels, scaled(test), test_labels
