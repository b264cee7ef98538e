"""Retrieval by groups is the per-image loop; the network is asked for what is not settled, and never twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError
from clearn.parts.retrieval import ROUNDS, refine, tasks_of, two_stages
from clearn.stream import TaskInfo

torch.set_num_threads(1)


def naive(first: int, table: Tensor, tasks: Tensor) -> tuple[Tensor, int, int]:
    """One image: table (T, C) of logits; gives last logits, last adapter, evaluations."""
    adapter = first
    for k in range(1, ROUNDS + 1):
        logits = table[adapter]
        following = int(tasks[int(logits.argmax())])
        if following == adapter or k == ROUNDS:
            return logits, adapter, k
        adapter = following
    raise AssertionError


class Table:
    """Logits by image and adapter, (n, T, C); notes what was asked for."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.asked: list[tuple[int, int]] = []

    def __call__(self, rows: Tensor, which: Tensor) -> Tensor:
        self.asked += list(zip(rows.tolist(), which.tolist(), strict=True))
        return self.values[rows, which]


def following(n_tasks: int, steps: dict[int, int]) -> Tensor:
    """(1, T, T) logits of one class a task by which adapter a leads to adapter steps[a]; each row tells its adapter."""
    table = torch.arange(n_tasks * n_tasks, dtype=torch.float32).view(1, n_tasks, n_tasks) / 100
    for a, b in steps.items():
        table[0, a, b] = 10 + a
    return table


@pytest.mark.parametrize(
    ("steps", "start", "last", "rounds", "passes"),
    [
        ({1: 1}, 1, 1, 1, 2),  # a fixed point
        ({0: 0}, 0, 0, 1, 1),  # that of the first adapter costs nothing more
        ({1: 2, 2: 2}, 1, 2, 2, 3),
        ({1: 2, 2: 1}, 1, 2, 4, 3),  # 1, 2, 1, 2: the fourth evaluation is adapter 2's
        ({0: 1, 1: 0}, 0, 1, 4, 2),
        ({0: 1, 1: 2, 2: 3, 3: 3}, 0, 3, 4, 4),
        ({0: 1, 1: 2, 2: 3, 3: 0}, 0, 3, 4, 4),
    ],
)
def test_walks_by_hand(steps: dict[int, int], start: int, last: int, rounds: int, passes: int) -> None:
    table = Table(following(4, steps))
    found = refine(torch.tensor([start]), table.values[:, 0], torch.arange(4), table)
    assert found.adapters.tolist() == [last]
    assert found.rounds.tolist() == [rounds]
    assert found.passes.tolist() == [passes]
    assert torch.equal(found.logits, table.values[:, last])


@pytest.mark.parametrize(("n", "n_tasks", "per_task"), [(200, 5, 2), (200, 20, 1), (64, 2, 3), (50, 1, 4), (1, 10, 2)])
def test_groups_equal_the_loop_on_random_tables(n: int, n_tasks: int, per_task: int) -> None:
    rng = torch.Generator().manual_seed(n + n_tasks)
    tasks = torch.arange(n_tasks).repeat_interleave(per_task)
    table = Table(torch.randn(n, n_tasks, len(tasks), generator=rng))
    table.values[::7, :, :per_task] = table.values[::7].amax(2, keepdim=True)  # ties: the lowest class wins
    first = torch.randint(n_tasks, (n,), generator=rng)
    found = refine(first, table.values[:, 0], tasks, table)
    for i in range(n):
        logits, adapter, rounds = naive(int(first[i]), table.values[i], tasks)
        assert torch.equal(found.logits[i], logits)
        assert (int(found.adapters[i]), int(found.rounds[i])) == (adapter, rounds)
    assert len(table.asked) == len(set(table.asked))
    assert all(which > 0 for _, which in table.asked)
    assert int((found.passes - 1).sum()) == len(table.asked)


def test_no_image_is_no_question() -> None:
    table = Table(torch.zeros(0, 3, 3))
    found = refine(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3), torch.arange(3), table)
    assert found.logits.shape == (0, 3)
    assert table.asked == []


def test_two_stages_by_hand() -> None:
    found = two_stages(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.1, 0.3]]), 2)
    torch.testing.assert_close(found, torch.tensor([[1.2821, 0.7179]]), rtol=0, atol=5e-5)
    both = two_stages(torch.randn(5, 7), torch.rand(5, 7), 20)
    torch.testing.assert_close(both.sum(1), torch.full((5,), 2.0))


def test_each_class_belongs_to_the_task_that_brought_it() -> None:
    infos = (TaskInfo(0, (0, 1, 2)), TaskInfo(1, (3,)), TaskInfo(2, (4, 5)))
    assert tasks_of(infos).tolist() == [0, 0, 0, 1, 2, 2]
    with pytest.raises(ConfigError, match=r"classes \[1\] of task 4 came before"):
        tasks_of((*infos, TaskInfo(3, (1, 6))))
