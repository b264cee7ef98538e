"""RanPAC: sums over tasks are one ridge regression on all data; lambda three ways; the projection by seed or stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import one_hot

from clearn import checks
from clearn.errors import ConfigError, Diverged
from clearn.ledger import account
from clearn.parts.frozen_vit import Vit
from clearn.parts.projection import Projection
from clearn.parts.triangles import unpacked
from clearn.recipe import Recipe
from clearn.state import freeze
from clearn.stream import Inputs, Stream, Task
from strategies.ranpac import RIDGES, RanPac, best_ridge, best_ridge_of_sums, solved

torch.set_num_threads(1)

Learned = Callable[..., Any]
Arranged = Callable[..., Stream]
INPUTS = Inputs((3, 8, 8))
BRIEF = Recipe(epochs=2, lr=0.05, batch_size=8)


def ranpac(**options: Any) -> RanPac:
    torch.manual_seed(0)
    given = {"projection": Projection(40), "adapt": False, "bottleneck": 4, "first": BRIEF, **options}
    return RanPac(INPUTS, Vit("test_vit", weights=False, image_size=16), **given)


def images() -> tuple[Tensor, Tensor]:
    part = checks.toy_stream(1, 6).task(0).train
    return part.fetch(torch.arange(len(part))), part.labels


@torch.no_grad()
def answers(net: RanPac) -> Tensor:
    return net.eval().predict(images()[0])


def by_hand(h: Tensor, y: Tensor, held_h: Tensor, held_y: Tensor) -> float:
    """The paper's choice, one solve a candidate."""
    h, y, held_h, held_y = h.double(), y.double(), held_h.double(), held_y.double()
    eye = torch.eye(h.shape[1], dtype=torch.float64)
    errors = [float((held_y - held_h @ torch.linalg.solve(h.T @ h + r * eye, h.T @ y)).square().mean()) for r in RIDGES]
    return RIDGES[int(np.argmin(errors))]


def made(n: int, m: int, seed: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    centres = torch.randn(3, m, generator=torch.Generator().manual_seed(99))
    return (centres[y] + noise * torch.randn(n, m, generator=rng)).relu(), one_hot(y).float()


def test_it_is_ridge_regression_on_all_samples_at_once(learned: Learned) -> None:
    net = ranpac(ridge=3.0)
    assert not learned(net, 3).phases
    x, y = images()
    with torch.no_grad():
        h = net.random(net.vit(x))
    theirs = Ridge(alpha=3.0, fit_intercept=False, solver="cholesky").fit(h.double().numpy(), one_hot(y).numpy())
    np.testing.assert_allclose(net.weights().numpy(), theirs.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(answers(net).numpy(), theirs.predict(h.double().numpy()), atol=1e-4)


def test_sums_are_the_joint_ones_in_any_order_and_split(learned: Learned, arranged: Arranged) -> None:
    order = (4, 0, 5, 2, 1, 3)
    joint, other = ranpac(ridge=1.0), ranpac(ridge=1.0)
    learned(joint, 1, arranged(increment=6))
    learned(other, 3, arranged(order, increment=[1, 3, 2]))
    scale = float(joint.gram.max())
    torch.testing.assert_close(other.gram, joint.gram, rtol=1e-6, atol=1e-6 * scale)
    torch.testing.assert_close(other.cross, joint.cross[list(order)], rtol=1e-6, atol=1e-6 * float(joint.cross.max()))
    x, y = images()
    with torch.no_grad():
        h = joint.random(joint.vit(x)).double()
    expected = (h.T @ h).float()
    torch.testing.assert_close(unpacked(joint.gram, 40), expected, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(joint.cross.T.double(), h.T @ one_hot(y).double(), rtol=1e-5, atol=1e-4)


def test_the_weights_solve_the_normal_equations_in_float64() -> None:
    h, y = made(50, 20, 0)
    gram, cross = h.T @ h, y.T @ h
    w = solved(gram, cross, 0.5)
    assert w.dtype == torch.float64
    torch.testing.assert_close(w @ (gram.double() + 0.5 * torch.eye(20)), cross.double(), rtol=1e-10, atol=1e-10)
    before = gram.double()
    solved(before, cross, 0.5)
    assert torch.equal(before, gram.double())  # not changed in place


def test_a_ridge_too_small_to_be_resolved_is_raised_until_it_is() -> None:
    h, y = made(8, 20, 0)
    gram = h.T @ h - 1e-5 * torch.eye(20)  # as rounding leaves it: not quite positive
    w = solved(gram, y.T @ h, 1e-8)
    assert bool(w.isfinite().all())
    torch.testing.assert_close(w, solved(gram, y.T @ h, 1e-4))
    with pytest.raises(Diverged, match="not finite"):
        solved(torch.full((2, 2), torch.nan), torch.zeros(1, 2), 1.0)


@pytest.mark.parametrize(("n", "m"), [(40, 15), (15, 40)])
@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_the_choice_of_lambda_is_the_papers(n: int, m: int, noise: float) -> None:
    (h, y), (held_h, held_y) = made(n, m, 0, noise), made(10, m, 1, noise)
    chosen = by_hand(h, y, held_h, held_y)
    assert best_ridge(h, y, held_h, held_y) == chosen
    sums = best_ridge_of_sums(h.T @ h, y.T @ h, held_h.T @ held_h, held_y.T @ held_h)
    assert sums == chosen or chosen < 1e-3  # sums in float32 resolve no tiny lambda
    assert RIDGES[0] == 1e-8
    assert RIDGES[-1] == 1e8
    assert len(RIDGES) == 17


def test_current_looks_at_the_last_task_and_carries_its_choice(learned: Learned) -> None:
    net = ranpac()
    ctx = learned(net, 2)
    x, y = images()
    x, y = x[(y >= 2) & (y < 4)], y[(y >= 2) & (y < 4)]
    with torch.no_grad():
        h = net.random(net.vit(x))
    rows = torch.randperm(24, generator=ctx.rng("ranpac/split"))
    labels = one_hot(y, 4)
    expected = by_hand(h[rows[:19]], labels[rows[:19]], h[rows[19:]], labels[rows[19:]])
    assert float(net.chosen) == expected == ctx.cost.logged["ranpac/ridge"]
    assert net.state()["model/chosen"].dtype == torch.float64


def test_all_seen_holds_a_fifth_of_every_task_out_and_fits_all(learned: Learned) -> None:
    net, fixed = ranpac(ridge="all_seen"), ranpac(ridge=1.0)
    learned(net, 3)
    learned(fixed, 3)
    scale = float(fixed.gram.max())
    torch.testing.assert_close(net.gram + net.held_gram, fixed.gram, rtol=1e-6, atol=1e-6 * scale)
    torch.testing.assert_close(net.cross + net.held_cross, fixed.cross, rtol=1e-6, atol=1e-6 * scale)
    expected = best_ridge_of_sums(unpacked(net.gram, 40), net.cross, unpacked(net.held_gram, 40), net.held_cross)
    assert float(net.chosen) == expected
    weights = solved(unpacked(fixed.gram, 40), fixed.cross, expected).float()
    torch.testing.assert_close(net.weights(), weights, rtol=1e-2, atol=1e-3 * float(weights.abs().max()))


def test_a_single_sample_keeps_the_last_choice(spy: Any, arranged: Arranged) -> None:
    net, stream = ranpac(), arranged(increment=1)
    for index in range(3):
        task = stream.task(index)
        net.learn(Task(task.info, task.train.take(torch.tensor([0])), ()), spy(stream, index))
        assert float(net.chosen) == 1.0
    assert bool(answers(net).isfinite().all())


def test_the_adapter_is_trained_on_the_first_task_alone(learned: Learned) -> None:
    net = ranpac(adapt=True)
    assert len(learned(net, 1).phases) == 1
    assert not learned(net, 3, first=1).phases
    assert net.adapter is not None
    assert bool(net.adapter.up.any())
    with torch.no_grad():
        x = images()[0]
        assert torch.equal(net.eval().features(x), net.vit(x, net.adapter))  # not beside the plain ones, as APER's


@pytest.mark.parametrize("carry", ["seed", "stored"])
def test_a_rebuilt_learner_answers_the_same(learned: Learned, carry: str) -> None:
    net = ranpac(projection=Projection(40, carry))  # type: ignore[arg-type]
    learned(net, 3)
    torch.manual_seed(7)  # another seed than the one it was made by
    again = RanPac(
        INPUTS,
        Vit("test_vit", weights=False, image_size=16),
        adapt=False,
        projection=Projection(40, carry),  # type: ignore[arg-type]
    )
    again.load(net.state(), checks.toy_stream().infos)
    assert torch.equal(answers(again), answers(net))


def expected_bytes(d: int, depth: int, r: int, m: int, n_classes: int) -> dict[tuple[str, str], int]:
    return {
        ("model", "params"): 4 * depth * (2 * d * r + r + d),
        ("model", "prototypes"): 4 * m * n_classes,
        ("model", "covariances"): 2 * m * (m + 1),
        ("model", "rng"): 8,
        ("model", "meta"): 8,
    }


def test_bytes_are_the_specs(learned: Learned) -> None:
    published = expected_bytes(768, 12, 64, 10_000, 100)
    assert list(published.values()) == [4_758_528, 4_000_000, 200_020_000, 8, 8]
    net = ranpac(adapt=True)
    learned(net, 3, train=False)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    weights = sum(value.nbytes for value in net.vit.state_dict().values())
    expected = expected_bytes(64, 6, 4, 40, 6)
    expected["model", "params"] += weights
    assert rows == expected


def test_options_change_the_bytes_as_they_say(learned: Learned) -> None:
    def rows(**options: Any) -> dict[str, int]:
        net = ranpac(**options)
        learned(net, 1)
        found = account(freeze(net.state(), net.untouched()), net.category).rows()
        return {category: size for (_, category), size in found.items() if category != "params"}

    plain = {"prototypes": 4 * 40 * 2, "covariances": 2 * 40 * 41, "rng": 8, "meta": 8}
    assert rows() == plain
    assert rows(ridge=1e4) == {name: size for name, size in plain.items() if name != "meta"}
    assert rows(ridge="all_seen") == plain | {"prototypes": 2 * 4 * 40 * 2, "covariances": 2 * 2 * 40 * 41}
    stored = {name: size for name, size in plain.items() if name != "rng"}
    assert rows(projection=Projection(40, "stored")) == stored | {"buffers": 4 * 64 * 40}


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("inf")])
def test_a_ridge_that_cannot_be_is_refused(ridge: float) -> None:
    with pytest.raises(ConfigError, match="ridge="):
        ranpac(ridge=ridge)


def test_defaults_are_the_papers() -> None:
    assert Projection() == Projection(10_000, "seed")
    torch.manual_seed(0)
    net = RanPac(INPUTS, Vit("test_vit", weights=False, image_size=16), projection=Projection(8))
    assert net.ridge == "current"
    assert net.adapter is not None
    assert net.adapter.down.shape == (6, 64, 64)
    assert net.first == Recipe(epochs=20, lr=0.01, schedule="cosine", batch_size=48, weight_decay=5e-4)
