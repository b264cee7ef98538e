"""Columns of what an answer to a request takes."""

from __future__ import annotations

from collections.abc import Callable

from clearn.report.columns import Kind
from clearn.report.unlearning.columns.kinds import DOWN, UP, Found, Measure
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import Request


def columns() -> list[Measure]:
    """Give the columns of costs."""

    def cost(
        key: str,
        title: str,
        kind: Kind,
        value: Callable[[UnlearningGroup, Request], Found],
        note: str,
        better: str = "",
    ) -> Measure:
        return Measure(key, title, "cost", kind, value, note, better)

    return [
        cost(
            "seconds",
            "wall s",
            "loss",
            lambda group, one: group.figure(one, lambda f: f.own_seconds),
            "wall seconds of the method's own work at the request",
            DOWN,
        ),
        cost(
            "speed",
            "× faster",
            "loss",
            lambda group, one: group.speed(one),
            "seconds of retraining over the method's own, paired by seed",
            UP,
        ),
        cost(
            "cpu_seconds",
            "cpu s",
            "loss",
            lambda group, one: group.figure(one, lambda f: f.cpu_seconds),
            "processor seconds of the whole step, weighing and scoring included",
            DOWN,
        ),
        cost(
            "samples",
            "samples read",
            "count",
            lambda group, one: group.figure(one, lambda f: f.read),
            "training samples read, each time they were",
            DOWN,
        ),
        cost(
            "kept_bytes",
            "kept",
            "bytes",
            lambda group, one: group.spread(lambda run: float(run.kept(one))),
            "bytes that the unlearner had kept since training when the request came",
            DOWN,
        ),
        cost(
            "freed_bytes",
            "freed",
            "bytes",
            lambda group, one: group.spread(lambda run: float(run.freed(one))),
            "bytes that left the strategy's memory with the request",
        ),
        cost(
            "thrown_out",
            "thrown out",
            "count",
            lambda group, one: group.figure(one, lambda f: f.logged.get("forget/thrown_out")),
            "exemplars that left the memory",
        ),
    ]
