"""Joint: a new network on all data so far; every sample is carried, and weighed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import checks
from clearn.errors import BudgetExceeded
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import Budget
from clearn.recipe import Recipe
from clearn.runner import run
from clearn.stream import Inputs
from strategies.joint import Joint

torch.set_num_threads(1)

Learned = Callable[..., Any]
BRIEF = Recipe(epochs=1, batch_size=8)
INPUTS = Inputs((3, 8, 8))


def joint(**options: Any) -> Joint:
    torch.manual_seed(0)
    return Joint(INPUTS, "convnet2", recipe=BRIEF, **options)


def test_each_task_trains_on_everything_met_once(learned: Learned) -> None:
    net, stream = joint(), checks.toy_stream()
    for task in range(3):
        data = learned(net, task + 1, stream, first=task).phases[0].data
        assert data.labels.bincount().tolist() == [checks.PER_CLASS] * 2 * (task + 1)
    held = net.memory.samples()
    parts = [stream.task(task).train for task in range(3)]
    assert torch.equal(held.labels, torch.cat([part.labels for part in parts]))
    pixels = torch.cat([part.fetch(torch.arange(len(part))) for part in parts])
    assert torch.equal(held.fetch(torch.arange(len(held))), pixels)


def test_from_scratch_the_past_weights_leave_no_trace(learned: Learned, spy: Callable[..., Any]) -> None:
    stream, trained = checks.toy_stream(2), []
    for junk in (0.0, 9.0):
        net = joint()
        learned(net, 1, stream)
        with torch.no_grad():
            next(net.parameters()).add_(junk)
        torch.manual_seed(4)
        net.learn(stream.task(1), spy(stream, 1))
        trained.append(net.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_otherwise_it_goes_on_from_them(learned: Learned) -> None:
    net, stream = joint(from_scratch=False), checks.toy_stream(2)
    learned(net, 1, stream)
    before = net.net
    learned(net, 2, stream, first=1)
    assert net.net is before
    assert joint().from_scratch


def test_every_sample_weighs_its_pixels_and_its_label(tmp_path: Path) -> None:
    rows = RunFolder(run(checks.experiment(checks.subject("joint")), tmp_path / "run")).rows(LEDGER)
    kept = [row["bytes"] for row in rows if row.get("category") == "exemplars"]
    assert kept == [24 * tasks * (192 + 2) for tasks in (1, 2, 3)], "uint8 pixels and int16 labels"
    assert [row["exemplars"] for row in rows if row["kind"] == "figures"] == [24, 48, 72]


def test_a_budget_is_refused_with_the_reason(tmp_path: Path) -> None:
    experiment = checks.experiment(checks.subject("joint"), budget=Budget(10**9))
    with pytest.raises(BudgetExceeded, match=r"joint keeps every sample .* run it with budget\.policy=none"):
        run(experiment, tmp_path / "run")
    run(checks.experiment(checks.subject("joint"), budget=Budget(10**9, "none")), tmp_path / "other")
