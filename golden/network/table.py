"""A table from a text file as people have it: encoding, separator, decimal mark and header are found, and each finding is told.

Pandas reads the rows. What it would settle in silence is checked here: rows of other lengths, names that two columns share, a
header that may be a sample, and a sample that may be a header.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEPARATORS = ("\t", ";", ",")
"""Those that are looked for, in this order; with ``;`` and tab a comma may be the decimal mark."""

SPOKEN = {"\t": "tab", " ": "spaces"}

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The first bytes of a file that say how it is encoded."""

MISSING = frozenset({"", "na", "n/a", "<na>", "nan", "-nan", "null", "#n/a"})
"""What stands for a missing value, in any case of letters."""

SWITCHES = {"true", "false"}
"""What 1 and 0 may be called."""

LOOKED_AT = 20
"""Lines by which the separator is found."""

JUDGED = 1000
"""Rows by which a column is one of numbers or of text."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_PLAIN = re.compile(r"[-+.0-9eE\n]+")
"""Characters of which Python makes no number that is none here."""

_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


def missing(text: str) -> bool:
    """Whether a field holds nothing, or a mark for nothing."""
    return text.casefold() in MISSING


def whole(text: str) -> bool:
    """Whether a field is an integer, written as one."""
    return _WHOLE.fullmatch(text) is not None


def infinite(text: str) -> bool:
    """Whether a field says infinity."""
    return _INFINITE.fullmatch(text) is not None


def short(text: str) -> str:
    """A field for a message: whole, or its beginning and its length."""
    return repr(text) if len(text) <= 40 else f"{text[:24]!r}... ({len(text):,} characters)"


@dataclass(frozen=True, eq=False)
class Table:
    """The samples of a file as text.

    Attributes:
        path: of the file, as it was given.
        names: of the columns: the header's, or ``column 0``, ``column 1``, ...
        cells: (rows, columns), text without blanks at its ends.
        lines: (rows,) in which line of the file each row begins, from 1.
        decimal: the decimal mark of its numbers.
        notes: what was found, in sentences.
    """

    path: Path
    names: tuple[str, ...]
    cells: NDArray[Any]
    lines: NDArray[np.int64]
    decimal: str
    notes: tuple[str, ...]

    def at(self, row: int, column: int) -> str:
        """Where a cell is, for a message."""
        return f"{self.path}, line {self.lines[row]}, {_spoken(self.names[column])}"

    def number(self, text: str) -> str | None:
        """A field as Python writes a number; None for what is none."""
        return as_number(text, self.decimal)

    def numbers(self, column: int) -> NDArray[np.float64]:
        """A column as numbers, (rows,); true and false count as 1 and 0.

        Raises:
            ValueError: a value is missing, no number or not finite; with the line, the column and the value.
        """
        given: list[str] = list(self.cells[:, column])
        if given[0].casefold() in SWITCHES and {text.casefold() for text in given} <= SWITCHES:
            return np.array([text.casefold() == "true" for text in given], np.float64)
        if self.decimal == "." and _PLAIN.fullmatch("\n".join(given)):
            with contextlib.suppress(ValueError):  # the slow way says where, and why
                return self._finite(np.array(given, np.float64), column)
        texts = []
        for row, text in enumerate(given):
            read = self.number(text)
            if read is None:
                if missing(text):
                    raise ValueError(f"{self.at(row, column)}: no value may be missing, and here is {short(text)}")
                rule = "finite" if infinite(text) else f"a number with the decimal mark {self.decimal!r}"
                raise ValueError(f"{self.at(row, column)}: must be {rule}, not {short(text)}")
            texts.append(read)
        return self._finite(np.array(texts, np.float64), column)

    def _finite(self, made: NDArray[np.float64], column: int) -> NDArray[np.float64]:
        if not np.isfinite(made).all():
            row = int(np.flatnonzero(~np.isfinite(made))[0])
            raise ValueError(f"{self.at(row, column)}: must be finite in float64, not {short(self.cells[row, column])}")
        return made


def as_number(text: str, decimal: str) -> str | None:
    """A field as Python writes a number; None for what is none. Nothing is grouped: 1.234,5 is no number."""
    if decimal == "," and "," in text:
        return text.replace(",", ".") if _COMMA.fullmatch(text) else None
    if decimal == "," and "." in text:
        return None
    return text if _NUMBER.fullmatch(text) else None


def read(path: str | Path, *, header: bool | None = None, separator: str = "", decimal: str = "", encoding: str = "") -> Table:
    """The table of a text file.

    Args:
        header: whether the first row names the columns; None decides by :func:`is_header`.
        separator: one character between the fields, a blank for any number of blanks; empty looks for one.
        decimal: ``.`` or ``,``; empty looks which of them the numbers have.
        encoding: any that Python knows; empty goes by the file's first bytes, then tries UTF-8, then takes Latin-1.

    Raises:
        ValueError: an argument is none of these, or the file is no such table; with the line where there is one.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"header must be true or false, not {header!r}")
    if not isinstance(separator, str) or len(separator) > 1 or separator in ('"', "\n", "\r", "."):
        raise ValueError(f"separator must be one character such as ',' or ';', not {separator!r}")
    if decimal not in ("", ".", ","):
        raise ValueError(f"decimal must be '.' or ',', not {decimal!r}")
    text, notes = _decoded(path, encoding)
    if not separator:
        separator, said = _separator(path, text)
        notes.append(said)
    rows, lines = _rows(path, text, separator, notes)
    if len(rows[0]) < 2:
        raise ValueError(
            f"{path}: rows must have at least two columns, inputs and a target, not the one {short(rows[0][0])}; "
            "separator names what stands between the columns where it is no comma, semicolon or tab"
        )
    mark = decimal or _decimal(path, rows, lines)
    if mark == ",":
        notes.append("The decimal mark is a comma." if decimal else "The decimal mark is taken to be a comma.")
    found, said = is_header(rows, mark) if header is None else (header, "")
    if found is None:
        raise ValueError(f"{path}, line {lines[0]}: {said}; say header = true or header = false")
    names, cells, told = _named(path, rows, found)
    notes.append(said if said else f"The first row is {'the header' if found else 'a sample'}, as header says.")
    notes += told
    if not len(cells):
        raise ValueError(f"{path}: rows must follow the header, and there is none")
    return Table(path, names, cells, np.array(lines[int(found) :], np.int64), mark, tuple(notes))


# ------------------------------------------------------------------------------------------------ text and rows


def _decoded(path: Path, encoding: str) -> tuple[str, list[str]]:
    raw = path.read_bytes()
    notes: list[str] = []
    if not raw.strip():
        raise ValueError(f"{path}: must hold rows, and is empty")
    chosen = encoding or next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(chosen)
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, such as utf-8 or latin-1, not {encoding!r}") from None
    except UnicodeDecodeError as error:
        if encoding or chosen != "utf-8":
            raise ValueError(f"{path}: must be text in {chosen}: {error}") from None
        text = raw.decode("latin-1")
        line = raw.count(b"\n", 0, error.start) + 1
        notes.append(f"The file is no UTF-8 (line {line} has the byte 0x{raw[error.start]:02x}) and is read as Latin-1.")
    else:
        if chosen not in ("utf-8", "utf-8-sig"):
            notes.append(f"The file is read as {chosen.upper()}.")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}, line {line}: must be text, and holds a zero byte; encoding may be utf-16-le or utf-16-be")
    return text, notes


def _separator(path: Path, text: str) -> tuple[str, str]:
    """The character between the fields, and how it was found."""
    lines = [re.sub(r'"[^"]*"', "", line) for line in text.split("\n") if line.strip()][:LOOKED_AT]
    counted = {mark: [line.count(mark) for line in lines] for mark in SEPARATORS}
    alike = [mark for mark in SEPARATORS if counted[mark][0] and len(set(counted[mark])) == 1]
    some = [mark for mark in SEPARATORS if counted[mark][0]]
    chosen = (alike or some or [","])[0]
    return chosen, f"Columns are separated by {SPOKEN.get(chosen, chosen)!r}."


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of any length: the reader's own bound is 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(path: Path, text: str, separator: str, notes: list[str]) -> tuple[list[list[str]], list[int]]:
    """Rows of equal length, and the line in which each begins."""
    import pandas as pd  # here: it takes a second, and most commands read no table

    # Wide enough for every row, so that short and long ones show as what they are.
    widest = max(line.count(separator) for line in text.split("\n")) + 1
    with _long_fields():
        try:
            frame = pd.read_csv(
                io.StringIO(text), header=None, names=range(widest), index_col=False, dtype=object, na_filter=False,
                sep=r"\s+" if separator == " " else separator, skip_blank_lines=False, engine="python",
                skipinitialspace=separator != "\t",
            )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
            if "end of data" in str(error):
                raise ValueError(f'{path}: a quotation mark (") must be closed, and one is not before the file ends') from None
            raise ValueError(f"{path}: must be a table with {separator!r} between the columns: {error}") from None
    rows: list[list[str]] = []
    lines: list[int] = []
    line, blank, quoted = 1, 0, '"' in text
    for cells in frame.to_numpy().tolist():
        row = [str(cell) for cell in cells if cell is not None]
        if row and not (len(row) == 1 and not row[0].strip()):
            rows.append([cell.strip() for cell in row])
            lines.append(line)
            if blank:
                notes.append(f"Blank lines are skipped, such as line {line - 1}.")
                blank = -sys.maxsize  # said once
        elif rows:
            blank += 1
        line += 1 + (sum(cell.count("\n") for cell in row) if quoted else 0)
    if not rows:
        raise ValueError(f"{path}: must hold rows, and is empty")
    usual = Counter(map(len, rows)).most_common(1)[0][0]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != usual:
            many = f"{len(row)} column{'' if len(row) == 1 else 's'}"
            raise ValueError(f"{path}, line {line}: rows must all have the same number of columns, {usual}, not {many}")
    return rows, lines


def _decimal(path: Path, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> str:
    """The decimal mark that the numbers have."""
    point = comma = None
    for row, line in zip(rows, lines, strict=True):
        for cell in row:
            if comma is None and "," in cell and _COMMA.fullmatch(cell):
                comma = (cell, line)
            elif point is None and "." in cell and _NUMBER.fullmatch(cell):
                point = (cell, line)
    if comma and point:
        raise ValueError(
            f"{path}: numbers must have one decimal mark, not a comma in line {comma[1]} ({comma[0]!r}) and a point in line "
            f"{point[1]} ({point[0]!r}); decimal names it"
        )
    return "," if comma else "."


# ------------------------------------------------------------------------------------------------ the header


def is_header(rows: Sequence[Sequence[str]], decimal: str) -> tuple[bool | None, str]:
    """Whether the first row is a header, and why; None where it may be one or a sample, and why that.

    A column counts as one of numbers if more than half of its fields in the next thousand rows are numbers. The first row is a
    header if text stands over every column of numbers, and a sample if text stands over none. It is neither for certain if text
    stands over some only, or if it counts 0, 1, 2, ... as the header of a table without names does.
    """
    first, body = rows[0], rows[1 : JUDGED + 1]
    kinds = []
    for column, text in enumerate(first):
        below = [row[column] for row in body if not missing(row[column])]
        numeric = not body or 2 * sum(as_number(cell, decimal) is not None for cell in below) > len(below)
        kind = "missing" if missing(text) else "number" if as_number(text, decimal) is not None else "text"
        kinds.append(kind if numeric else "")
    named = ", ".join(short(text) for text in first[:6]) + (", ..." if len(first) > 6 else "")
    text_over = [i for i, kind in enumerate(kinds) if kind == "text"]
    gaps = [i for i, kind in enumerate(kinds) if kind == "missing"]
    if not body and text_over and not gaps:
        text_over = list(range(len(first)))
        kinds = ["text"] * len(first)
    counts = [str(i) for i in range(len(first))]
    indexed = gaps == [0] and not first[0] and body and all(row[0] == str(i) for i, row in enumerate(body))
    if list(first) == counts or (indexed and list(first[1:]) == counts[: len(first) - 1]):
        # A column without a whole number in it has none in its first sample either.
        broken = any(not any(whole(row[i]) for row in body) for i in range(len(first)))
        if indexed or (body and broken):
            return True, f"The first row, {named}, is taken for the header of a table without names."
        return None, f"the first row must be a header or a sample, and {named} may be either"
    if not text_over:
        return False, f"The first row, {named}, is taken for a sample, as no text stands over a column of numbers: no header."
    if indexed or (not gaps and "number" not in kinds):
        return True, f"The first row is taken for the header, as text stands over columns of numbers: {named}."
    other = next(i for i, kind in enumerate(kinds) if kind in ("number", "missing"))
    return None, (
        f"the first row must be a header or a sample: column {text_over[0]} has {short(first[text_over[0]])} over numbers, "
        f"and column {other} has {short(first[other])}"
    )


def _named(path: Path, rows: Sequence[Sequence[str]], header: bool) -> tuple[tuple[str, ...], NDArray[Any], list[str]]:
    """The names, the samples, and what was done to get them."""
    told = []
    width = len(rows[0])
    names = [f"column {i}" for i in range(width)]
    if header:
        first = [rows[0][0].removeprefix("#").strip(), *rows[0][1:]]
        for i, name in enumerate(first):
            if name in first[:i] and name:
                raise ValueError(
                    f"{path}: columns must have names of their own, and {name!r} is that of columns {first.index(name)} and {i}"
                )
        names = [name or f"column {i}" for i, name in enumerate(first)]
    cells = np.array([list(row) for row in rows[int(header) :]], object).reshape(-1, width)
    if header and not rows[0][0] and len(cells) and [str(i) for i in range(len(cells))] == list(cells[:, 0]):
        told.append("The first column has no name and counts the rows from 0: it is an index, and left out.")
        names, cells = names[1:], cells[:, 1:]
    return tuple(names), cells, told


def _spoken(name: str) -> str:
    return name if re.fullmatch(r"column \d+", name) else f"column {short(name)}"
