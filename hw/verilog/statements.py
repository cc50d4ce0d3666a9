"""The statements of a clocked block, and how they are laid out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Choice", "If", "Node", "block", "merged", "negated", "when", "wrapped"]

WIDTH = 132
"""Columns of a line."""


@dataclass
class If:
    """Statements of a clocked block under a condition; ``otherwise`` where it does not hold."""

    condition: str
    then: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


@dataclass
class Choice:
    """Statements by the value of a selector; the label of the last one may be ``default``."""

    selector: str
    cases: list[tuple[str, list[Node]]]


Node = str | If | Choice


def merged(bodies: Iterable[list[Node]]) -> list[Node]:
    """The statements of several registers in one list: those under the same condition under one, for their order is free."""
    found: list[Node] = []
    places: dict[str, If] = {}
    for body in bodies:
        for node in body:
            alone = len(body) == 1 and isinstance(node, If)
            if isinstance(node, If) and alone and node.condition in places:
                same = places[node.condition]
                same.then, same.otherwise = merged([same.then, node.then]), merged([same.otherwise, node.otherwise])
            else:
                if isinstance(node, If) and alone:
                    places[node.condition] = node
                found.append(node)
    return found


def when(condition: str, then: list[Node], otherwise: list[Node]) -> If:
    """Statements under a condition; under both at once where that is all that stands under it."""
    if len(then) == 1 and isinstance(then[0], If) and not then[0].otherwise and not otherwise:
        both = (f"({text})" if " " in text else text for text in (condition, then[0].condition))
        return If(" && ".join(both), then[0].then)
    return If(condition, then, otherwise)


def negated(condition: str) -> str:
    """The opposite of a condition."""
    if re.fullmatch(r"~\w+(\[\d+\])?", condition):
        return condition[1:]
    return f"!{condition}" if re.fullmatch(r"\w+(\[\d+\])?", condition) else f"!({condition})"


def block(head: str, nodes: list[Node], indent: int) -> Iterator[str]:
    """Statements behind what they belong to; a single one beside it."""
    if len(nodes) == 1 and isinstance(nodes[0], str) and head != "initial" and indent + len(head) + len(nodes[0]) < WIDTH:
        yield f"{' ' * indent}{head} {nodes[0]}"
    elif not nodes:
        yield f"{' ' * indent}{head} ;"
    else:
        yield wrapped(f"{head} begin", indent)
        for node in nodes:
            yield from _node(node, indent + 2)
        yield " " * indent + "end"


def _node(node: Node, indent: int) -> Iterator[str]:
    if isinstance(node, str):
        yield wrapped(node, indent)
    elif isinstance(node, If):
        *lines, last = block(f"if ({node.condition})", node.then, indent)
        yield from lines
        if not node.otherwise:
            yield last
            return
        if len(node.otherwise) == 1 and isinstance(node.otherwise[0], If):
            first, *rest = _node(node.otherwise[0], indent)
            first = f"else {first.lstrip()}"
        else:
            first, *rest = block("else", node.otherwise, indent)
        first = " " * indent + first.lstrip()
        if last.strip() == "end":
            yield f"{last} {first.lstrip()}"
        else:
            yield from (last, first)
        yield from rest
    else:
        yield wrapped(f"case ({node.selector})", indent)
        for label, body in node.cases:
            yield from block(f"{label}:", body, indent + 2)
        yield f"{' ' * indent}endcase"


def wrapped(text: str, indent: int) -> str:
    """A statement on as many lines as it needs."""
    space = " " * indent
    return textwrap.fill(
        text, WIDTH, initial_indent=space, subsequent_indent=space + "    ", break_long_words=False, break_on_hyphens=False
    )
