"""Files written whole: a reader, and an interruption, finds the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write a file beside its place, then move it there. What a link points to is written, and the link stays.

    Args:
        path: where; its folder must exist.
        content: text is written as UTF-8.

    Returns:
        The path as it was given.

    Raises:
        ValueError: something else than a file is there, such as a device.
        OSError: the folder cannot be written.
    """
    given = Path(path)
    target = given.resolve()
    if target.exists() and not target.is_file():
        raise ValueError(f"output must be a file, or nothing yet, not {str(target)!r}, which is something else")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to write a file into", os.fspath(given))
    # Not tempfile: its files are closed to others, whatever the user's mask says.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return given
