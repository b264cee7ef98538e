"""Forgetting by a column of the data: users, and sub-classes of merged labels."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearn import checks, cli
from clearn.binding import build
from clearn.config import load
from clearn.errors import ConfigError, DataError, UserError
from clearn.folder import RunFolder
from clearn.learning import Learning
from clearn.mistakes import Mistake
from clearn.parts.columns import as_column
from clearn.report.unlearning.runs import read_requests
from clearn.stream import Stream
from clearn.streams import class_incremental, from_arrays
from clearn.streams.datasets import dataset
from clearn.streams.datasets.merging import PUBLISHED, merged
from clearn.streams.requests import RequestOptions, WithRequests
from clearn.unlearner import Unlearner

torch.set_num_threads(1)

LABELS = [0, 1, 2, 3] * 5
USERS = [17, 17, "anna", "anna", 5] * 4


def stream(**options: Any) -> Stream:
    """Sample i is the vector (i, i); 4 classes in two tasks, and users who hold samples of several classes."""
    x = np.arange(20, dtype=np.float32)[:, None].repeat(2, 1)
    return from_arrays(x, LABELS, x[:4], LABELS[:4], columns={"user": USERS}, **options)


def asked(base: Stream, *options: RequestOptions) -> WithRequests:
    return WithRequests(base, options)


def numbers(base: Stream, **options: Any) -> list[int]:
    """Which samples a request means, in file order."""
    found = asked(base, RequestOptions(**options))
    return sorted(int(v) for v in found.forget(found.requests[0]).forget.fetch(torch.arange(999)[: _n(found)])[:, 0])


def _n(found: WithRequests) -> int:
    return len(found.forget(found.requests[0]).forget)


@pytest.mark.parametrize("order_seed", [None, 1])
@pytest.mark.parametrize("values", [(17,), ("17",), ("anna", 5)])
def test_all_learned_samples_of_the_users_go_and_no_other(
    order_seed: int | None, values: tuple[int | str, ...]
) -> None:
    base = stream(order_seed=order_seed)
    of = {str(value) for value in values}
    for after in (1, 2):
        learned = {int(v) for i in range(after) for v in base.task(i).train.fetch(torch.arange(10))[:, 0]}
        wanted = sorted(i for i in learned if str(USERS[i]) in of)
        assert numbers(base, after=after, column="user", values=values) == wanted
        assert wanted


def test_per_class_limits_and_held_out_samples_keep_columns_in_step(tmp_path: Path) -> None:
    x = np.arange(20, dtype=np.float32)[:, None].repeat(2, 1)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.array(LABELS), user=np.array(USERS), other=np.zeros((3, 3)))
    data = dataset("arrays", file=str(tmp_path / "a.npz"), columns=["user"], per_class_train=3)
    rows = data.train.fetch(torch.arange(len(data.train)))[:, 0].long().tolist()
    column = data.columns["user"]
    assert len(rows) == 12
    assert [column.values[code] for code in column.codes] == [str(USERS[row]) for row in rows]


def test_a_table_s_columns_are_no_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,user,label\n" + "".join(f"{i},{USERS[i]},{LABELS[i]}\n" for i in range(20)))
    data = dataset("csv", file=str(path), columns=["user"])
    assert data.train.shape == (1,)
    rows = data.train.fetch(torch.arange(len(data.train)))[:, 0].long().tolist()
    assert [data.columns["user"].values[c] for c in data.columns["user"].codes] == [str(USERS[row]) for row in rows]
    for columns, said in (
        (["usr"], "did you mean 'user'"),
        (["label"], "no column 'label' beside"),
        (["user", "a"], "no input is left"),
    ):
        with pytest.raises(DataError, match=said):
            dataset("csv", file=str(path), columns=columns)
    with pytest.raises(ConfigError, match="each once"):
        dataset("csv", file=str(path), columns=["user", "user"])
    with pytest.raises(ConfigError, match="is for arrays, csv"):
        dataset("digits", columns=["user"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.5, 2.0], "float64"),
        ([[1], [2]], "shape"),
        ([1], "has 1 values"),
        ([None, "a"], "holds None"),
        ([[1], [2, 3]], "ragged"),
        ([True, False], "bool"),
    ],
)
def test_what_is_no_column_is_refused(values: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_arrays(np.zeros((2, 2), np.float32), [0, 1], np.zeros((2, 2)), [0, 1], columns={"user": values})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([("usr", (17,), 1)], "did you mean 'user'"),
        ([("user", ("ana",), 1)], "did you mean 'anna'"),
        ([("user", (99,), 1)], "the values are 17, 5, anna"),
        ([("user", (17,), 1), ("user", (17,), 1)], "all samples with user '17' are forgotten already"),
        ([("user", (17, "anna", 5), 1)], "all of class 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[tuple[str, Any, int]], said: str) -> None:
    entries = [RequestOptions(after=after, column=column, values=values) for column, values, after in options]
    with pytest.raises(ConfigError, match=said):
        asked(stream(), *entries)


def test_a_user_of_later_tasks_has_to_wait() -> None:
    x = np.zeros((8, 2), np.float32)
    base = from_arrays(x, [0, 0, 1, 1, 2, 2, 3, 3], x[:4], [0, 1, 2, 3], columns={"user": list("ababcdcd")})
    with pytest.raises(ConfigError, match="no sample with user 'c' was learned in the first 1 tasks"):
        asked(base, RequestOptions(after=1, column="user", values=("c",)))
    with pytest.raises(ConfigError, match="there are no columns at all"):
        asked(checks.toy_stream(), RequestOptions(after=1, column="user", values=("c",)))


VALUES = st.sampled_from([None, (), (1,), ("x",), (17, "x"), (True,), ["anna"], "user", 0, 1, 2.5, "", "zzz"])


@given(st.dictionaries(st.sampled_from(["column", "values", "ids", "count", "after"]), VALUES))
def test_bad_entries_end_in_one_message(entry: dict[str, Any]) -> None:
    errors: list[Mistake] = []
    option = build(RequestOptions, entry, "stream.requests[0]", errors)
    assert (option is None) == bool(errors)
    if option is not None:
        with contextlib.suppress(UserError):
            assert asked(stream(), option).requests[0].rows or entry["ids"] == ()


def test_merged_labels_are_counted_by_hand() -> None:
    plain = dataset("digits")
    data = merged(plain, {"low": [0, "1", 8], "high": [2, 3, 4, 5, 6, 7, 9]})
    counts = plain.train.labels.bincount()
    assert data.train.labels.bincount().tolist() == [
        int(counts[[0, 1, 8]].sum()),
        int(counts.sum() - counts[[0, 1, 8]].sum()),
    ]
    assert data.classes == ("low", "high")
    assert data.merged[0] == ("0", "1", "8")
    base = class_incremental.cut(plain, increment=1, merge=[[0, 1, 8], [2, 3, 4, 5, 6, 7, 9]], order_seed=3)
    found = asked(base, RequestOptions(after=2, column="class", values=(8,)))
    assert len(found.requests[0].rows) == int(counts[8])
    gone = found.forget(found.requests[0]).forget
    assert torch.equal(
        gone.fetch(torch.arange(len(gone))), plain.train.take((plain.train.labels == 8).nonzero()[:, 0]).inputs
    )
    with pytest.raises(ConfigError, match="all of class"):
        asked(base, RequestOptions(after=2, column="class", values=(0, 1, 8)))


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ([[0, 1], [2, 3]], "class '4' is in no group"),
        ([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8, 9]], "class '4' is named more than once"),
        ([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10]], "no class '10'"),
        ([list(range(10))], "makes 1 groups"),
        ([[], list(range(10))], "1 of them empty"),
        ([[0], [0]], "two equal groups"),
        ("superclasses", "only set that has them"),
    ],
)
def test_groups_that_are_no_partition_are_refused(merge: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        merged(dataset("digits"), merge)


def test_superclasses_are_the_published_ones() -> None:
    groups = {name: words.split() for name, words in PUBLISHED["cifar100"].items()}
    fine = sorted(name for names in groups.values() for name in names)  # CIFAR-100 numbers its classes so
    assert len(set(fine)) == 100
    assert {len(names) for names in groups.values()} == {5}
    of = {name: i for i, names in enumerate(groups.values()) for name in names}
    known = {
        "rocket": (69, 19),
        "mushroom": (51, 4),
        "baby": (2, 14),
        "lamp": (40, 5),
        "sea": (71, 10),
    }  # the SSD paper
    assert {name: (fine.index(name), of[name]) for name in known} == known


def columned() -> WithRequests:
    toy = checks.toy_stream()
    users = torch.arange(checks.PER_CLASS).repeat(6) % 4
    images = torch.cat([toy.task(i).train.fetch(torch.arange(2 * checks.PER_CLASS)) for i in range(3)])
    labels = torch.cat([toy.task(i).train.labels for i in range(3)])
    base = from_arrays(images, labels, images, labels, increment=2, layout="NCHW", columns={"user": users})
    return asked(base, RequestOptions(after=2, column="user", values=(1,)))


def test_a_run_through_a_request_by_column_resumes_bit_for_bit_and_its_memory_forgets() -> None:
    class Idle(Unlearner):
        def forget(self, strategy: Any, request: Any, ctx: Any) -> None:
            pass

    def experiment() -> Learning:
        return replace(checks.experiment(checks.subject("replay"), columned()), unlearner=Idle)

    whole, stopped = checks.trace(experiment()), checks.trace(experiment(), until=3)
    checks.run_experiment(experiment(), stopped.path)
    checks.assert_same(whole, checks.read_trace(stopped.path), "undisturbed", "resumed", "state is missing")
    gone = columned().forget(columned().requests[0]).forget
    pixels = [row.numpy().tobytes() for row in gone.fetch(torch.arange(len(gone)))]
    held = [any(one in RunFolder(whole.path).state_path(step).read_bytes() for one in pixels) for step in (2, 3, 4)]
    assert held == [True, False, False]


CONFIG = """
stream: {name: class_incremental, data: arrays, file: mine.npz, increment: 2}
strategy: {name: finetune, backbone: mlp, first: {epochs: 1}, later: {epochs: 1}}
budget: {policy: none}
trainer: {threads: 1, accelerator: cpu}
"""


def test_a_finished_run_forgets_users_even_if_they_are_named_only_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.savez("mine.npz", x_train=x, y_train=np.array(LABELS), user=np.array(USERS))
    Path("mine.yaml").write_text(CONFIG)
    assert cli.main(["run", "mine.yaml", "out=old"]) == 0
    start = ["unlearn", "old", "stream.columns=[user]", "--method", "nothing", "--column", "user", "--values"]
    assert cli.main([*start, "17", "out=new"]) == 2, "out=new is a value here"
    assert "no value 'out=new'" in capsys.readouterr().err
    assert cli.main(["unlearn", "old", "out=new", *start[2:], "17"]) == 0
    assert RunFolder(Path("new")).state_path(3).exists()
    (request,) = read_requests(load("new/config.yaml"))
    assert request.words == "17 of column user after task 2"
    for words, said in (
        (["--column", "user"], "must come together"),
        (["--classes", "1", "--values", "1"], "must come together"),
        (["--column", "user", "--values", "17"], "there are no columns"),
    ):
        assert cli.main(["unlearn", "old", "--method", "nothing", *words]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["unlearn", "old", "--method", "nothing", "--column", "user", "--classes", "1"])


def test_a_column_knows_its_values_rows_and_checksum() -> None:
    column = as_column(np.array([b"a", b"b", b"a"]), "user")
    assert column.rows(["a", "zz"]).tolist() == [0, 2]
    assert column.take(torch.tensor([1])).occurring() == {"b"}
    assert column.sha256 != as_column(["a", "b", "b"], "user").sha256
