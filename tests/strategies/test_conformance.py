"""Every shipped strategy keeps every promise of the conformance suite; the folder says which strategies there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from clearn import checks, plugins
from clearn.errors import ConfigError
from clearn.folder import SCORES, RunFolder
from clearn.options import RunnerOptions
from clearn.strategy import Strategy
from clearn.stream import Stream
from clearn.streams import datasets, domain_incremental

torch.set_num_threads(1)

CLASSES = {name: plugins.find("strategies", name) for name in plugins.names("strategies")}
NAMES = tuple(name for name, cls in CLASSES.items() if issubclass(cls, Strategy) and cls.rebuilds)
SUBJECTS = [
    *((name, ()) for name in NAMES),
    ("replay", ("memory.codec=png", "stored_per_step=3")),
    ("memo", ("backbone=resnet14", "train_base=false", "zero_corner=true", "memory.selection=random")),
    ("icarl", ("loss=bce", "memory.codec=jpeg:75")),
    ("ewc", ("form=separate", "fisher=batch", "softmax_over=seen")),
    ("dark_er", ("beta=0", "logits=final", "memory.codec=png", "stored_per_step=3")),
    ("ranpac", ("ridge=all_seen", "projection.carry=stored")),
    ("ranpac", ("ridge=1e4", "adapt=false")),
    ("mos", ("statistics.mode=multi-centroid", "init=fresh", "merges_per_step=1", "ensemble=false")),
    ("mos", ("later_adapters=false", "statistics.mode=diagonal")),
    ("mos", ("store=int8", "init=mean", "statistics.mode=full")),
]
NEW_CLASSES_ONLY = ("ease", "mos", "slca")  # routes each class to the one task that brought it


def test_no_strategy_and_no_check_is_missing() -> None:
    assert {"finetune", "joint", "replay", "icarl", "wa", "der_expand", "memo"} <= set(NAMES)
    files = {path.stem for path in Path(plugins.ROOT, "strategies").glob("[!_]*.py")}
    assert files <= set(plugins.names("strategies"))
    assert len(checks.ALL) >= 14
    assert all(check.__doc__ for check in checks.ALL)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("name", "options"), SUBJECTS, ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_conforms(name: str, options: tuple[str, ...], check: Callable[[checks.Subject], None]) -> None:
    check(checks.subject(name, options))


@cache
def domains() -> Stream:
    """Four made-up classes in three domains: as they are, inverted, turned upside down."""
    toy = checks.toy_stream(2, 2)
    parts = [toy.task(index).train for index in range(2)]
    inputs = torch.cat([part.fetch(torch.arange(len(part))) for part in parts])
    labels = torch.cat([part.labels for part in parts])
    data = datasets.from_arrays(inputs, labels, inputs, labels, layout="NCHW")
    return domain_incremental.DomainIncremental(
        domain_incremental.transformed(data, ["identity", "invert", "rotate 180"])
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEW_CLASSES_ONLY])
def test_classes_that_come_back_in_another_domain_are_learned_weighed_and_rebuilt(name: str) -> None:
    subject = checks.subject(name)
    experiment = checks.experiment(subject, domains())
    rebuilt = checks.trace(experiment)
    kept = checks.trace(replace(experiment, runner=RunnerOptions(rebuild=False)))
    checks.assert_same(rebuilt, kept, "with the rebuild", "without it", "something outside `state()` survives a task")
    rows = RunFolder(rebuilt.path).rows(SCORES)
    assert {(row["step"], row["task"]) for row in rows} == {(s, t) for s in (1, 2, 3) for t in range(1, s + 1)}
    assert all(sorted(row["classes"]) == ["0", "1", "2", "3"] for row in rows)


@pytest.mark.parametrize("name", NEW_CLASSES_ONLY)
def test_a_method_that_needs_new_classes_refuses_old_ones_before_it_learns(name: str) -> None:
    with pytest.raises(ConfigError, match=r"came before.* use a class_incremental stream"):
        checks.trace(checks.experiment(checks.subject(name), domains()))
