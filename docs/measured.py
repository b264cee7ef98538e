"""What docs/results says of a method: the rows of its tables that are about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from typesetting import table

DOCS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Table:
    """A Markdown table of docs/results: where it stands, its head and its rows, cells as written."""

    page: str
    title: str
    anchor: str
    under: str
    head: list[str]
    rows: list[list[str]]


def results(name: str) -> list[str]:
    """Rows of docs/results that are about a method, under the page that they come from."""
    lines: list[str] = []
    for found in measured():
        rows = [row for row in found.rows if about(row[0]) == name]
        if rows:
            head = f"### {found.title}"
            lines += [head, ""] if head not in lines else []
            where = f"../../results/{found.page}#{found.anchor}"
            lines += [f"**[{found.under}]({where})**", "", *table(found.head, rows)]
    return ["## Measured", "", *lines] if lines else []


def about(cell: str) -> str:
    """The method that a row is about: its first word, without markup."""
    return re.split(r"[ ,(]", re.sub(r"[*`\\]", "", cell).strip(), maxsplit=1)[0]


@cache
def measured() -> tuple[Table, ...]:
    """Every table of docs/results whose rows are methods."""
    return tuple(one for path in sorted((DOCS / "results").glob("*.md")) for one in tables_of(path))


def tables_of(path: Path) -> Iterator[Table]:
    """Read the tables of a page whose first column is headed method, protocol or unlearner."""
    from markdown.extensions.toc import slugify, unique

    lines = path.read_text(encoding="utf-8").splitlines()
    used: set[str] = set()
    headings: list[tuple[int, str]] = []  # those that the line stands under, outermost first
    title, anchor = path.stem, ""
    for at, line in enumerate(lines):
        if found := re.match(r"(#+) (.*)", line):
            level, text = len(found[1]), found[2]
            anchor = unique(slugify(re.sub(r"[*`\\]", "", text), "-"), used)
            title = text if level == 1 else title
            headings = [one for one in headings if 1 < one[0] < level] + [(level, text)]
        if re.match(r"\| (method|protocol|unlearner) \|", line):
            under = ", ".join(text for _, text in headings)
            yield Table(path.name, title, anchor, under, _cells(line), list(_while_table(lines[at + 2 :])))


def _while_table(lines: Iterable[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield _cells(line)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
