"""From the rows of one step to named numbers, the same names for every tracker.

Scores: `accuracy` (headline), `accuracy/READOUT`, `accuracy/READOUT/PROBE`, as fractions; of collections `error`,
`error/PROBE` and what they are compared with. Ledger: `bytes/OWNER/CATEGORY`, `bytes/total` and its kin,
`seconds/PHASE`, and every other figure as `figures/NAME`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
SUMS = ("top5", "prefix", "f1")  # of a row of scores, summed over its samples like `correct`
SIZES = ("total", "shared", "delta", "framing", "budget", "slack", "paper", "bank", "transient")  # figures in bytes
SKIPPED = ("kind", "step", "seconds", *SIZES)


def numbers(scores: Sequence[Row], ledger: Sequence[Row]) -> dict[str, float]:
    """Name every finite number in the rows of one step.

    Args:
        scores: its rows of scores.jsonl; none for what was prepared before the first step.
        ledger: its rows of ledger.jsonl.

    >>> rows = [{"readout": "nme", "probe": "task 1", "headline": True, "correct": 3, "total": 4}]
    >>> numbers(rows, [{"kind": "bytes", "owner": "model", "category": "head", "bytes": 40}])
    {'accuracy': 0.75, 'accuracy/nme': 0.75, 'accuracy/nme/task 1': 0.75, 'bytes/model/head': 40.0}
    """
    rates = [row for row in scores if "correct" in row]
    errors = [row for row in scores if row.get("kind") == "frequencies"]
    named = (*_rates(rates), *_errors(errors), *_weights(ledger))
    return {name: value for name, value in named if math.isfinite(value)}


def _rates(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Fractions of right answers, pooled and by probe."""
    yield from _pooled("accuracy", "correct", [row for row in rows if row.get("headline")])
    for readout in dict.fromkeys(str(row["readout"]) for row in rows):
        own = [row for row in rows if row["readout"] == readout]
        yield from _pooled(f"accuracy/{_word(readout)}", "correct", own)
        for key in SUMS:
            yield from _pooled(f"{key}/{_word(readout)}", key, [row for row in own if row.get(key) is not None])
        for row in own:
            yield from _pooled(f"accuracy/{_word(readout)}/{_word(row['probe'])}", "correct", [row])


def _pooled(name: str, key: str, rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    total = sum(row["total"] for row in rows)
    if total:
        yield name, sum(row[key] for row in rows) / total


def _errors(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Mean squared errors of a round under the post-processing that is judged, means over repeats and attributes."""
    kinds = (("error", "se"), ("error running", "running"), ("error linked", "linked"))
    for name, key in kinds:
        of_all = []
        for row in rows:
            of_one = [one for one in (row.get(key) or {}).get(row["headline"], ()) if one is not None]
            if of_one:
                of_all.append(fmean(of_one))
                yield f"{name}/{_word(row['probe'])}", of_all[-1]
        if of_all:
            yield name, fmean(of_all)
    for row in rows:
        for name, key in (("expected", "expected"), ("expected running", "expected_running"), ("uniform", "uniform")):
            if row.get(key) is not None:
                yield f"{name}/{_word(row['probe'])}", float(row[key])


def _weights(rows: Iterable[Row]) -> Iterator[tuple[str, float]]:
    for row in rows:
        if row["kind"] == "bytes":
            yield f"bytes/{_word(row['owner'])}/{_word(row['category'])}", float(row["bytes"])
            continue
        yield from ((f"bytes/{key}", float(row[key])) for key in SIZES if row.get(key) is not None)
        yield from _leaves("seconds", row.get("seconds") or {})
        yield from _leaves("figures", {key: value for key, value in row.items() if key not in SKIPPED})


def _leaves(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Numbers within mappings; texts, lists and yes or no are no figures."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}/{'/'.join(map(_word, str(key).split('/')))}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _word(text: object) -> str:
    """Spell a name so that every tracker takes it: MLflow's alphabet, without what separates names."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", str(text)).strip() or "_"
