"""Plain text of docstrings and listings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"[+-]?\d|–$")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, cells as they are, and an empty one; columns of numbers stand to the right."""
    listed = [list(row) for row in rows]
    columns = [[row[i] for row in listed] for i in range(len(head))]
    rule = [" ---: " if listed and all(NUMBER.match(cell) for cell in column) else " --- " for column in columns]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    return [*lines, *(f"| {' | '.join(cells)} |" for cells in listed), ""]


def paragraphs(parts: Iterable[str]) -> list[str]:
    """Docstring paragraphs as Markdown; what is indented stays as it is set."""
    lines: list[str] = []
    for part in parts:
        found = part.splitlines()
        indented = [line.startswith("    ") for line in found]
        if sum(indented) > len(found) / 2:
            lines += ["```text", *found, "```", ""]
        else:
            lines += [prose(one_line(part)), ""]
    return lines


def one_line(text: str) -> str:
    """Without line breaks and indents."""
    return " ".join(text.split())


def prose(text: str) -> str:
    """Plain text as Markdown: signs that mean something there are escaped, but between backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]])", r"\\\1", text).replace("<", "&lt;").replace("|", "&#124;")


def code(text: str) -> str:
    """Set as code; a table takes its bars as they are."""
    return f"`{text}`" if text else ""
