"""SimpleCIL: class means of a frozen network; order and split change nothing; bytes and bad input as promised."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from clearn import checks
from clearn.errors import ConfigError, DataError, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import account
from clearn.parts.frozen_vit import Vit
from clearn.runner import run
from clearn.state import freeze
from clearn.stream import Inputs, Stream, Task, TaskInfo
from strategies.simplecil import SimpleCil

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS = Inputs((3, 8, 8))


def simplecil(**options: Any) -> SimpleCil:
    torch.manual_seed(0)
    return SimpleCil(INPUTS, Vit("test_vit", weights=False, image_size=16), **options)


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


@torch.no_grad()
def answers(net: SimpleCil) -> Tensor:
    return net.eval().predict(images()[0])


def test_it_answers_by_the_cosine_with_class_means(learned: Learned) -> None:
    net = simplecil()
    assert not learned(net, 3).phases  # nothing is trained
    x, y = images()
    with torch.no_grad():
        features = net.vit(x)
    means = torch.stack([features[y == label].mean(0) for label in range(6)])
    torch.testing.assert_close(answers(net), cosine_similarity(features[:, None], means[None], dim=2))


@pytest.mark.parametrize("increment", [1, 3, 6, [1, 5], [4, 2]], ids=str)
def test_the_split_changes_nothing(learned: Learned, arranged: Arranged, increment: int | list[int]) -> None:
    joint, split = simplecil(), simplecil()
    learned(joint, 1, arranged(increment=6))
    stream = arranged(increment=increment)
    learned(split, len(stream), stream)
    torch.testing.assert_close(answers(split), answers(joint), rtol=1e-6, atol=1e-6)


def test_the_order_changes_nothing(learned: Learned, arranged: Arranged) -> None:
    order = (4, 0, 5, 2, 1, 3)
    joint, other = simplecil(), simplecil()
    learned(joint, 1, arranged(increment=6))
    learned(other, 3, arranged(order))
    torch.testing.assert_close(answers(other), answers(joint)[:, list(order)], rtol=1e-6, atol=1e-6)


def test_a_class_that_comes_back_equals_the_class_at_once(learned: Learned, arranged: Arranged) -> None:
    whole = arranged(increment=6).task(0)
    n = len(whole.train)
    parts = [torch.arange(n) % 2 == part for part in range(2)]
    halves = [whole.train.take(rows.nonzero().flatten()) for rows in parts]

    class Halves(Stream):
        def task(self, index: int) -> Task:
            return Task(self.infos[index], halves[index], ())

    facts = arranged(increment=6).facts
    infos = tuple(TaskInfo(index, facts.infos[0].classes) for index in range(2))
    joint, returning = simplecil(), simplecil()
    learned(joint, 1, arranged(increment=6))
    learned(returning, 2, Halves(replace(facts, infos=infos)))
    torch.testing.assert_close(answers(returning), answers(joint), rtol=1e-6, atol=1e-6)


def test_one_sample_a_class_is_its_own_mean(spy: Any, arranged: Arranged) -> None:
    net, stream = simplecil(), arranged(increment=1)
    for index in range(3):
        task = stream.task(index)
        few = Task(task.info, task.train.take(torch.tensor([0])), ())
        net.learn(few, spy(stream, index))
    x = torch.cat([stream.task(index).train.fetch(torch.tensor([0])) for index in range(3)])
    with torch.no_grad():
        torch.testing.assert_close(net.eval().predict(x).diagonal(), torch.ones(3))


def test_bytes_are_4cd_of_prototypes_beside_the_network(learned: Learned) -> None:
    net = simplecil()
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    weights = sum(value.nbytes for value in net.vit.state_dict().values())
    assert rows == {("model", "params"): weights, ("model", "prototypes"): 4 * 6 * 64}


def test_defaults_are_the_papers_backbone() -> None:
    assert Vit() == Vit("vit_base_patch16_224.augreg_in21k", True, None, "checkpoint")


def test_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match="images of shape"):
        SimpleCil(Inputs((64,), "float32"), Vit("test_vit", False, 16))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint in timm's layout."""
    return _write(tmp_path / "weights.safetensors", 0)


def _write(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def _on(weights: Path) -> checks.Subject:
    return checks.subject("simplecil", (f"vit.weights={weights}", "vit.image_size=32"))


def test_the_checkpoint_is_neither_written_nor_weighed_with_what_is_carried(weights: Path) -> None:
    found = checks.trace(checks.experiment(_on(weights)))
    folder = RunFolder(found.path)
    rows = [row for row in folder.rows(LEDGER) if row["step"] == 3 and row["kind"] == "bytes"]
    held = {row["category"]: row["bytes"] for row in rows}
    assert held["prototypes"] == 4 * 6 * 64
    assert held["shared_pretrained"] > 1_000_000
    assert set(held) == {"prototypes", "shared_pretrained"}
    assert folder.state_path(3).stat().st_size < 20_000


def test_a_stopped_run_goes_on_with_the_same_bits(weights: Path) -> None:
    what = checks.experiment(_on(weights))
    undisturbed, stopped = checks.trace(what), checks.trace(what, until=1)
    run(what, stopped.path)
    checks.assert_same(
        undisturbed, checks.read_trace(stopped.path), "undisturbed", "resumed", "the state lacks something"
    )


def test_a_missing_checkpoint_at_resume_is_named(weights: Path) -> None:
    what = checks.experiment(_on(weights))
    stopped = checks.trace(what, until=1)
    shutil.move(weights, weights.with_name("elsewhere.safetensors"))
    with pytest.raises(DataError, match=r"vit\.weights=.*weights\.safetensors"):
        run(checks.experiment(_on(weights)), stopped.path)


def test_a_changed_checkpoint_at_resume_is_named(weights: Path) -> None:
    stopped = checks.trace(checks.experiment(_on(weights)), until=1)
    _write(weights, 1)
    with pytest.raises(StateError, match="the checkpoint was changed or replaced"):
        run(checks.experiment(_on(weights)), stopped.path)
