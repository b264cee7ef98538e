"""CODA-Prompt: components by task, the loss by hand, the number of tasks, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from clearn import checks
from clearn.errors import ConfigError
from clearn.ledger import account
from clearn.parts.frozen_vit import Vit
from clearn.parts.prompts import Prefix
from clearn.recipe import Recipe
from clearn.state import freeze
from clearn.stream import Inputs, TaskInfo
from strategies.coda_prompt import CodaPrompt

torch.set_num_threads(1)

Learned = Callable[..., Any]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.01, schedule="quarter_cosine", batch_size=8, optimizer="adam")
D = 64


def coda(**options: Any) -> CodaPrompt:
    torch.manual_seed(0)
    return CodaPrompt(INPUTS, TINY, **({"recipe": BRIEF, "tasks": 3, "components": 9} | options)).eval()


def images(*labels: int) -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    keep = torch.isin(part.labels, torch.tensor(labels or range(6))).nonzero().flatten()
    return part.fetch(keep), part.labels[keep]


def scores(net: CodaPrompt, image: Tensor) -> Tensor:
    """(C,) logits of one image, by the paper's formula, component by component."""
    assert net.head is not None
    query, prefixes = net.vit(image[None])[0], {}
    prompts, keys, attention = (net.components.all(name) for name in net.components.NAMES)
    for place, block in enumerate(range(5)):
        mixed = torch.zeros(prompts.shape[2:])  # (l, d)
        for m in range(keys.shape[1]):
            weight = cosine_similarity(query * attention[place, m], keys[place, m], dim=0)
            mixed = mixed + weight * prompts[place, m]
        half = len(mixed) // 2
        prefixes[block] = Prefix(mixed[None, :half], mixed[None, half:])
    logits: Tensor = net.head(net.vit(image[None], prefixes=prefixes))[0]
    return logits


def test_prediction_follows_the_papers_formula(learned: Learned) -> None:
    net = coda()
    learned(net, 2)
    x, _ = images()
    with torch.no_grad():
        expected = torch.stack([scores(net.eval(), image) for image in x[::6]])
        torch.testing.assert_close(net.predict(x[::6]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("orthogonality", [0.0, 0.5])
def test_the_loss_is_that_of_the_new_classes_alone(orthogonality: float, learned: Learned) -> None:
    net = coda(orthogonality=orthogonality)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    x, y = images(2, 3)
    expected = torch.stack(
        [-log_softmax(scores(net, image)[2:], 0)[label - 2] for image, label in zip(x, y, strict=True)]
    ).mean()
    penalty = torch.zeros(())
    for name in net.components.NAMES:
        for rows in net.components.all(name).flatten(2):
            penalty = penalty + (rows @ rows.T - torch.eye(6)).square().mean()
    loss = ctx.phases[0].loss(x, y)
    torch.testing.assert_close(loss, expected + orthogonality * penalty, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert net.head is not None
    assert net.head.weight.grad is not None
    assert not bool(net.head.weight.grad[:2].any())
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    assert trained == {"components.prompts", "components.keys", "components.attention", "head.weight", "head.bias"}


def test_old_components_stay_as_their_task_left_them(learned: Learned) -> None:
    net = coda()
    learned(net, 1)
    first = {name: net.components.all(name).detach().clone() for name in net.components.NAMES}
    learned(net, 2, first=1)
    for name, rows in first.items():
        assert net.components.all(name).shape[1] == 6
        assert torch.equal(net.components.all(name)[:, :3], rows)
        assert not torch.allclose(rows.flatten(2) @ rows.flatten(2).mT, torch.eye(3), atol=1e-4)  # training moved them


def test_new_components_begin_at_right_angles_to_the_old(learned: Learned) -> None:
    net = coda()
    learned(net, 1)
    learned(net, 2, first=1, train=False)
    for name in net.components.NAMES:
        for rows in net.components.all(name).flatten(2):
            torch.testing.assert_close(rows[3:] @ rows[3:].T, torch.eye(3), rtol=0, atol=1e-5)
            torch.testing.assert_close(rows[:3] @ rows[3:].T, torch.zeros(3, 3), rtol=0, atol=1e-5)


def test_more_tasks_than_said_are_refused_before_anything_is_learned() -> None:
    with pytest.raises(ConfigError, match=r"task 3 came, but the components were dealt out to tasks=2: set tasks to"):
        checks.trace(checks.experiment(checks.subject("coda_prompt", ("tasks=2", "components=20"))))


def test_more_components_than_dimensions_are_refused() -> None:
    net = coda(tasks=2, components=100)
    net.grow(TaskInfo(0, (0, 1)))
    with pytest.raises(
        ConfigError, match=r"task 2 would make 100 components, but their keys have 64 .* to 64 or fewer"
    ):
        net.grow(TaskInfo(1, (2, 3)))


def test_components_that_cannot_be_dealt_out_evenly_are_left_over() -> None:
    net = coda(tasks=3, components=11)
    for t in range(3):
        net.grow(TaskInfo(t, (2 * t, 2 * t + 1)))
    assert len(net.components) == 9


def test_bytes_are_the_specs(learned: Learned) -> None:
    def expected(d: int, components: int, n_classes: int) -> int:
        return 4 * (5 * components * (8 + 1 + 1) * d + n_classes * (d + 1))

    assert expected(768, 100, 100) == 15_667_600
    net = coda()
    for t in (1, 2, 3):
        learned(net, t, first=t - 1, train=False)
        rows = account(freeze(net.state(), net.untouched()), net.category).rows()
        weights = sum(value.nbytes for value in net.vit.state_dict().values())
        head = 4 * 2 * t * (D + 1)
        params = weights + expected(D, 3 * t, 2 * t) - head
        assert rows == {("model", "params"): params, ("model", "head"): head}


def test_defaults_are_the_toolboxs() -> None:
    net = CodaPrompt(INPUTS, TINY)
    assert net.recipe == Recipe(epochs=20, lr=0.001, schedule="quarter_cosine", batch_size=128, optimizer="adam")
    assert (net.tasks, net.each, net.orthogonality, net.components.blocks) == (10, 10, 0.0, (0, 1, 2, 3, 4))
    net.grow(TaskInfo(0, (0, 1)))
    assert net.components.prompts.shape == (5, 10, 8, D)


def test_all_that_is_wrong_is_said_together_before_weights_are_looked_for() -> None:
    absent = Vit("test_vit", weights="absent.safetensors")
    with pytest.raises(ConfigError) as caught:
        CodaPrompt(INPUTS, absent, tasks=10, components=9, length=5, orthogonality=-1.0)
    assert str(caught.value) == (
        "components=9 must be 10 or more, one for each task; length=5 must be even, half for keys and half for values; "
        "orthogonality=-1.0 must be 0 or more and finite"
    )
    with pytest.raises(ConfigError, match=r"^blocks=\[5, 6\] must be one or more different blocks in \[0, 5\]$"):
        coda(blocks=(5, 6))
