"""Meta-training equals a plain loop, goes on where it was killed with the same bits, and is not repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearn import seeds
from clearn.context import Context
from clearn.errors import DataError, Diverged, UserError
from clearn.ledger import Budget
from clearn.meta import batches, documented_rows, evenly, meta_train
from clearn.options import TrainerOptions
from clearn.preparations import History, Shelf
from clearn.progress import Progress
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Query, Question, Row, Split, Upstream

torch.set_num_threads(1)

TRAINER = TrainerOptions(accelerator="cpu", threads=1)
RECIPE = MetaRecipe(epochs=4, lr=0.05, batch_size=3, accumulate=2, warmup=0.25, schedule="cosine", clip=0.5, patience=0)


def split(n: int, asked: Sequence[int], name: str) -> Split:
    documents = tuple(Document(f"{name}{i}", f"{name} text {i}") for i in range(n))
    questions = tuple(
        Question(f"{one.id} question {k}", one.id, answer="yes")
        for one, many in zip(documents, asked, strict=True)
        for k in range(many)
    )
    return Split(documents, questions)


UPSTREAM = Upstream(split(5, (3, 1, 2, 1, 1), "t"), split(2, (2, 2), "v"))


class Toy(Reader):
    """Two linear layers on the lengths of texts; says "yes" as soon as its first weight has moved far enough."""

    def __init__(self, threshold: float = 10.0) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(2, 4), nn.Linear(4, 1), nn.Dropout(0.2)
        self.threshold, self.calls = threshold, 0

    def loss(self, rows: Sequence[Row]) -> Tensor:
        self.calls += 1
        x = torch.tensor([[len(row.document.text) / 9, int(row.question.text[-1]) + 1.0] for row in rows])
        out: Tensor = (self.second(self.drop(torch.tanh(self.first(x)))) - 1.0).square().mean()
        return out

    def answer(self, questions: Sequence[Query]) -> list[str]:
        return ["yes" if float(self.second.bias.detach()) > self.threshold else "no" for _ in questions]


def made(threshold: float = 10.0) -> Toy:
    with seeds.scope(0, 0, "build"):
        return Toy(threshold)


def train(toy: Toy, recipe: MetaRecipe = RECIPE, root: Path | None = None, **more: Any) -> History:
    progress = more.pop("progress", Progress())
    ctx = Context(
        seed=0,
        step=0,
        trainer=TRAINER,
        device=torch.device("cpu"),
        augment=None,
        budget=Budget(),
        planned=[0],
        progress=progress,
    )
    shelf = Shelf(root, more.pop("facts", {"method": "toy"}))
    upstream = more.pop("upstream", UPSTREAM)
    return meta_train(toy, upstream, recipe, toy.loss, ctx=ctx, progress=progress, shelf=shelf, options=TRAINER, **more)


def same(a: Toy, b: Toy) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_an_epoch_has_every_row_once_in_batches_of_distinct_documents() -> None:
    rows = documented_rows(UPSTREAM.train)
    sizes = set()
    for seed in range(20):
        drawn = batches(rows, 3, torch.Generator().manual_seed(seed))
        sizes.add(len(drawn))
        assert Counter(row.question.text for batch in drawn for row in batch) == Counter(
            question.text for question in UPSTREAM.train.questions
        )
        for batch in drawn:
            assert len({row.document.id for row in batch}) == len(batch) <= 3
    assert sizes == {4}  # five first questions make two batches, two second ones and one third one each


def test_it_equals_a_plain_loop() -> None:
    toy, plain = made(), made()
    train(toy)
    rows, steps = documented_rows(UPSTREAM.train), 4 * 2
    optimizer = torch.optim.Adam(plain.parameters(), lr=1.0)
    plain.train()
    for epoch in range(4):
        drawn = batches(rows, 3, seeds.generator(0, epoch, "meta/order"))
        with seeds.scope(0, epoch, "meta/epoch"):
            for start in (0, 2):
                optimizer.zero_grad()
                for batch in drawn[start : start + 2]:
                    (plain.loss(batch) / 2).backward()
                nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
                for group in optimizer.param_groups:
                    group["lr"] = RECIPE.rate(epoch * 2 + start // 2, steps)
                optimizer.step()
    # the first epoch's weights are kept where no F1 differs
    assert RECIPE.rate(1, 8) == pytest.approx(0.05)
    first = made()
    train(first, replace(RECIPE, epochs=4))
    assert same(toy, first)
    last = made(-10.0)
    history = train(last)
    assert history.f1 == [1.0] * 4
    assert history.best == 0
    moving = made()
    kept: list[list[Tensor]] = []

    class Keeps(Progress):
        def prepared(self, *_: Any) -> None:
            kept.append([p.detach().clone() for p in moving.parameters()])

    train(moving, progress=Keeps())
    for mine, theirs in zip(kept[-1], plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-6, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(kept[0], moving.parameters(), strict=True))


class Killed(BaseException):
    pass


class Kills(Progress):
    """Ends the training after an epoch, as a signal would."""

    def __init__(self, after: int) -> None:
        self.after, self.notes = after, [""]

    def prepared(self, epoch: int, *_: Any) -> None:
        if epoch + 1 == self.after:
            raise Killed

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_killed_training_goes_on_with_the_same_bits(after: int, tmp_path: Path) -> None:
    whole, stopped, resumed = made(), made(), made()
    expected = train(whole)
    with pytest.raises(Killed):
        train(stopped, root=tmp_path, progress=Kills(after))
    seen = Kills(99)
    history = train(resumed, root=tmp_path, progress=seen)
    assert same(whole, resumed)
    assert (history.losses, history.f1, history.steps) == (expected.losses, expected.f1, expected.steps)
    assert resumed.calls == 4 * (4 - max(after - 1, 0))  # the killed epoch was not written yet
    assert after == 1 or "goes on after epoch" in seen.notes[-1]


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path) -> None:
    first, second = made(), made()
    history = train(first, root=tmp_path)
    again = train(second, root=tmp_path)
    assert second.calls == 0
    assert same(first, second)
    assert again == history
    assert [path.name for path in tmp_path.glob("*/*.safetensors")] == ["prepared.safetensors"]


@pytest.mark.parametrize(
    "change",
    [
        {"facts": {"method": "toy", "threshold": 3}},
        {"recipe": replace(RECIPE, seed=1)},
        {"upstream": Upstream(UPSTREAM.train, split(2, (2, 1), "v"))},
        {"upstream": Upstream(split(5, (3, 1, 2, 1, 2), "t"), UPSTREAM.val)},
    ],
    ids=["options", "recipe", "validation", "training data"],
)
def test_whatever_decides_what_is_learned_names_the_preparation(change: dict[str, Any], tmp_path: Path) -> None:
    train(made(), root=tmp_path)
    other = made()
    train(other, root=tmp_path, **change)
    assert other.calls > 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    whole, again = made(), made()
    train(whole, root=tmp_path)
    (path,) = tmp_path.glob("*/prepared.safetensors")
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(bytes(blob))
    train(again, root=tmp_path)
    assert again.calls == 16
    assert same(whole, again)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole, resumed = made(), made()
    train(whole)
    with pytest.raises(Killed):
        train(made(), root=tmp_path, progress=Kills(4))
    newest = sorted(tmp_path.glob("*/epoch-*.safetensors"))
    assert [path.name for path in newest] == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    newest[-1].write_bytes(newest[-1].read_bytes()[:-7])
    train(resumed, root=tmp_path)
    assert resumed.calls == 8  # epochs 3 and 4
    assert same(whole, resumed)


def test_the_best_epoch_is_kept_and_patience_ends_it() -> None:
    start = float(made().second.bias.detach())
    toy = made(start + 0.15)  # the bias passes the threshold in some epoch, and F1 is 1 from then on
    history = train(toy, replace(RECIPE, epochs=9, patience=2, schedule="constant", warmup=0.0))
    first = history.f1.index(1.0)
    assert 0 < first < 6
    assert history.best == first
    assert len(history.f1) == first + 3
    assert float(toy.second.bias.detach()) > start + 0.15


def test_no_epochs_train_nothing_and_no_data_is_an_error() -> None:
    toy = made()
    assert train(toy, replace(RECIPE, epochs=0)).f1 == []
    assert same(toy, made())
    for upstream in (Upstream(Split((), ()), UPSTREAM.val), Upstream(UPSTREAM.train, Split((), ()))):
        with pytest.raises(DataError, match="meta-training needs both"):
            train(made(), upstream=upstream)


def test_a_loss_that_is_not_finite_is_said() -> None:
    toy = made()
    with torch.no_grad():
        toy.second.bias.fill_(torch.inf)
    with pytest.raises(Diverged, match="smaller lr"):
        train(toy)


def test_rates_and_after_step_reach_the_optimiser() -> None:
    toy, seen = made(), []
    before = toy.first.weight.detach().clone()

    def after(optimizer: torch.optim.Optimizer) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])

    train(toy, replace(RECIPE, epochs=1, schedule="constant", warmup=0.0), rates=[(toy.first, 0.1)], after_step=after)
    assert len(seen) == 2
    assert sorted(seen[0]) == pytest.approx([0.005, 0.05])
    assert float((toy.first.weight.detach() - before).abs().max()) <= 2 * 0.005 * 1.01


def test_validation_questions_are_spread_evenly() -> None:
    questions = UPSTREAM.val.questions
    assert evenly(questions, 10) == list(questions)
    assert evenly(questions, 2) == [questions[0], questions[-1]]
    assert len(evenly(questions, 1)) == 1


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    toy = made()
    with pytest.raises(UserError, match=r"CLEARN_CACHE=FOLDER, or keep nothing with runner\.cache=false"):
        train(toy, root=tmp_path / "file")
    assert toy.calls == 0
