"""Requests to forget: which samples they mean, what an unlearner is given, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clearn.binding import build
from clearn.checks import PER_CLASS, toy_stream
from clearn.errors import ConfigError, DataError
from clearn.mistakes import Mistake
from clearn.parts.samples import occurring
from clearn.stream import Request, TaskInfo
from clearn.streams.requests import RequestOptions, WithRequests

PER_TASK = 2 * PER_CLASS  # two classes a task, three tasks


def stream(*options: RequestOptions) -> WithRequests:
    return WithRequests(toy_stream(), options)


def test_requests_follow_the_task_they_name() -> None:
    asked = stream(RequestOptions(after=3, classes=(1,)), RequestOptions(after=1, ids=(0,)))
    kinds = ["task" if isinstance(event, TaskInfo) else event.after for event in asked.events]
    assert kinds == ["task", 1, "task", "task", 3]
    assert asked.learned(2) == asked.infos[:1]
    assert asked.learned(5) == asked.infos
    assert len(asked) == 3


def test_a_class_goes_with_all_its_samples_and_stays_out_of_the_past() -> None:
    asked = stream(RequestOptions(after=2, classes=(1,), look_back=True))
    found = asked.forget(asked.requests[0])
    assert found.forget.labels.tolist() == [1] * PER_CLASS
    assert found.past is not None
    assert [len(task.train) for task in found.past] == [PER_CLASS, PER_TASK]
    assert all(not bool(occurring(task.train, found.forget).any()) for task in found.past)
    assert [probe.name for probe in found.probes] == ["task 1", "task 2"]


def test_without_looking_back_the_past_is_closed_but_not_for_the_judge() -> None:
    asked = stream(RequestOptions(after=2, classes=(1,)))
    assert asked.forget(asked.requests[0]).past is None
    assert sum(len(task.train) for task in asked.staying(asked.requests[0])) == 2 * PER_TASK - PER_CLASS


def test_numbers_run_through_the_tasks_in_order() -> None:
    asked = stream(RequestOptions(after=2, ids=(PER_TASK + 3, 0)))
    assert asked.requests[0].rows == ((0, 0), (1, 3))
    found = asked.forget(asked.requests[0]).forget
    wanted = [asked.task(0).train.fetch(torch.tensor([0])), asked.task(1).train.fetch(torch.tensor([3]))]
    assert torch.equal(found.fetch(torch.arange(2)), torch.cat(wanted))


def test_a_file_says_the_same_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("5\n2\n5\n")
    assert stream(RequestOptions(after=1, file=tmp_path / "ids.txt")).requests[0].rows == ((0, 2), (0, 5))


def test_a_draw_is_repeatable_and_meets_nothing_twice() -> None:
    first, second = RequestOptions(after=3, count=10, seed=1), RequestOptions(after=3, count=10, seed=2)
    asked = stream(first, second)
    assert asked.requests == stream(first, second).requests
    rows = [set(request.rows) for request in asked.requests]
    assert [len(one) for one in rows] == [10, 10]
    assert not rows[0] & rows[1]


def test_what_an_earlier_request_took_is_no_part_of_what_stays() -> None:
    asked = stream(RequestOptions(after=1, classes=(0,)), RequestOptions(after=2, ids=(PER_TASK,), look_back=True))
    found = asked.forget(asked.requests[1])
    assert found.past is not None
    assert 0 not in found.past[0].train.labels.tolist()
    assert [len(task.train) for task in found.past] == [PER_CLASS, PER_TASK - 1]


def test_an_empty_request_has_no_samples() -> None:
    asked = stream(RequestOptions(after=1, ids=()))
    assert asked.requests == (Request(1),)
    assert len(asked.forget(asked.requests[0]).forget) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([RequestOptions(after=4, classes=(0,))], "after=4 must lie in [1, 3]"),
        ([RequestOptions(after=1, classes=(2,))], "class 2 was not learned in the first 1 tasks"),
        ([RequestOptions(after=1, classes=(0, 1))], "would forget all classes"),
        (
            [RequestOptions(after=1, classes=(0,)), RequestOptions(after=2, classes=(0,))],
            "class 0 is forgotten already",
        ),
        ([RequestOptions(after=1, ids=(PER_TASK,))], f"sample {PER_TASK} is unknown"),
        ([RequestOptions(after=1, ids=(-1,))], "sample -1 is unknown"),
        ([RequestOptions(after=n, ids=(3,)) for n in (1, 2)], "sample 3 is forgotten already"),
        ([RequestOptions(after=1, count=PER_TASK)], f"count={PER_TASK} must be below {PER_TASK}"),
        ([RequestOptions(after=1, ids=tuple(range(PER_CLASS)))], "all of class 0, which its probe would go on testing"),
    ],
    ids=["late", "future class", "all classes", "class twice", "unknown", "negative", "twice", "all", "whole class"],
)
def test_what_cannot_be_meant_is_refused(options: list[RequestOptions], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stream(*options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"after": 0, "classes": [1]}, "after=0 must be at least 1"),
        ({"after": 1}, "nothing says what goes"),
        ({"after": 1, "classes": [1], "count": 3}, "classes and count says what goes"),
        ({"after": 1, "count": 0}, "count=0 must be at least 1"),
        ({"after": 1, "klasses": [1]}, "classes"),
    ],
)
def test_a_wrong_entry_is_refused(entry: dict[str, object], said: str) -> None:
    errors: list[Mistake] = []
    build(RequestOptions, entry, "stream.requests[0]", errors)
    assert said in " ".join(map(str, errors))


@pytest.mark.parametrize("text", ["1\ntwo\n", None])
def test_a_file_that_cannot_be_read_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"ids\.txt"):
        stream(RequestOptions(after=1, file=path))
