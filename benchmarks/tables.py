"""What the benchmarks share: a table for people, and medians."""

from __future__ import annotations

from collections.abc import Sequence


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose other columns are numbers."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    print(f"\n{title}")
    for row in (heads, ["-" * width for width in widths], *rows):
        print(
            "  ".join(
                word.ljust(width) if i == 0 else word.rjust(width)
                for i, (word, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    print(flush=True)
