"""The published budgets as tables for people: computed figures, and beside them what the papers print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from clearn.published import MIB, BudgetPoint, aligned, benchmark, budget_points
from clearn.published_areas import Area, areas
from clearn.report.plain import Part, Rows, print_parts

if TYPE_CHECKING:
    from rich.console import Console

HEAD = """Published counting: 4 bytes a backbone parameter, height x width x 3 an exemplar. MiB = 2^20 bytes.
K is the number of exemplars. Every figure is computed but those under "papers print" and the areas.
To run them where the data are: clearn sweep budgets/memory_agnostic_cifar100 (clearn list configs shows its siblings).
"""


def show(console: Console) -> None:
    """Print one table a protocol; of the memory-agnostic one, one a setting with the areas that were published."""
    console.print(HEAD, highlight=False, soft_wrap=True)
    for rows, part in tables():
        print_parts(console, rows, [part])


def tables() -> list[tuple[Rows, Part]]:
    """What `show` prints."""
    found = [_benchmark(), _aligned()]
    areas_of = {setting: list(rows) for setting, rows in groupby(areas(), key=lambda area: area.setting)}
    for setting, points in groupby(budget_points(), key=lambda point: point.setting):
        found += [_agnostic(setting, list(points)), _areas(setting, areas_of[setting])]
    return found


def _benchmark() -> tuple[Rows, Part]:
    rows = benchmark()
    columns: dict[str, Iterable[object]] = {
        "net": (row.backbone for row in rows),
        "T": (row.tasks for row in rows),
        "K": (row.exemplars for row in rows),
    }
    for kind, sizes in (
        ("one-net", [row.single_bytes for row in rows]),
        ("MEMO", [row.memo_bytes for row in rows]),
        ("DER", [row.der_bytes for row in rows]),
    ):
        columns |= {f"{kind} bytes": sizes, f"{kind} MiB": _mib(sizes)}
    title = "Benchmark: everyone gets as many exemplars, which comes to these bytes"
    return _table(title, ("setting", [row.setting for row in rows]), columns)


def _aligned() -> tuple[Rows, Part]:
    rows = aligned()
    printed = (
        {"MiB": row.printed_mib, "one-net K": row.printed_single_exemplars, "MEMO K": row.printed_memo_exemplars}
        for row in rows
    )
    columns: dict[str, Iterable[object]] = {
        "net": (row.backbone for row in rows),
        "T": (row.tasks for row in rows),
        "bytes": (row.budget_bytes for row in rows),
        "MiB": _mib(row.budget_bytes for row in rows),
        "one-net K": (row.single_exemplars for row in rows),
        "DER K": (row.der_exemplars for row in rows),
        "MEMO K": (row.memo_exemplars for row in rows),
        "MEMO params": (row.memo_params for row in rows),
        "papers print": map(_others, printed),
    }
    title = "Memory-aligned: everyone gets the bytes that DER ends with"
    return _table(title, ("setting", [row.setting for row in rows]), columns)


def _agnostic(setting: str, points: Sequence[BudgetPoint]) -> tuple[Rows, Part]:
    printed = (
        {"one-net K": point.printed_single_exemplars, "MEMO K": point.printed_memo_exemplars} for point in points
    )
    columns: dict[str, Iterable[object]] = {
        "bytes": (point.budget_bytes for point in points),
        "papers' MiB": (point.printed_mib for point in points),
        "one net": (point.single_backbone for point in points),
        "K": (point.single_exemplars for point in points),
        "DER/MEMO net": (point.backbone for point in points),
        "DER K": (point.der_exemplars for point in points),
        "DER params": (point.der_params for point in points),
        "MEMO K": (point.memo_exemplars for point in points),
        "MEMO params": (point.memo_params for point in points),
        "MEMO net MiB": _mib(point.memo_model_bytes for point in points),
        "papers print": map(_others, printed),
    }
    title = f"Memory-agnostic: {setting}, T = {points[0].tasks}"
    return _table(title, ("MiB", list(_mib(point.budget_bytes for point in points))), columns)


def _areas(setting: str, found: Sequence[Area]) -> tuple[Rows, Part]:
    columns: dict[str, Iterable[object]] = {
        "AUC-A MiB": (f"{area.average:g}" for area in found),
        "AUC-A %": (f"{100 * area.shares[0]:.1f}" for area in found),
        "AUC-L MiB": (f"{area.last:g}" for area in found),
        "AUC-L %": (f"{100 * area.shares[1]:.1f}" for area in found),
    }
    title = f"The areas that the papers print: {setting}, over {found[0].range_mib:g} MiB"
    return _table(title, ("method", [area.method for area in found]), columns)


def _table(title: str, first: tuple[str, list[str]], columns: Mapping[str, Iterable[object]]) -> tuple[Rows, Part]:
    head, names = first
    written = [(name, [str(cell) for cell in cells]) for name, cells in columns.items()]
    return Rows(head, names, names, []), Part(title, [(name, cells) for name, cells in written if any(cells)])


def _mib(sizes: Iterable[int]) -> Iterable[str]:
    return (f"{size / MIB:.2f}" for size in sizes)


def _others(printed: Mapping[str, object | None]) -> str:
    return ", ".join(f"{name} {value}" for name, value in printed.items() if value is not None)
