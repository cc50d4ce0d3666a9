"""Small tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; every text is escaped, and what a short row lacks stays empty."""

    def line(tag: str, cells: Sequence[object]) -> str:
        filled = [*cells, *[""] * (len(head) - len(cells))]
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in filled) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<table>\n<caption>{escape(caption)}</caption>\n{line('th', head)}\n{body}\n</table>"
