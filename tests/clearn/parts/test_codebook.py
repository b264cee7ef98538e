"""Vector quantisation held against hand-computed numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError
from clearn.parts.codebook import Codebook, Quantiser, nearest, perplexity, spread

torch.set_num_threads(1)

E = [[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]
X = [[0.2, 0.1], [0.9, 1.2]]
VERSION = bytes(range(32))


def three(**options: Any) -> Quantiser:
    made = Quantiser(3, 2, Codebook(**options))
    made.codebook.data = torch.tensor([E])
    return made


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_quantisation_by_hand() -> None:
    """Specs mbc, section 13."""
    made, x = three(reset=False), torch.tensor(X, requires_grad=True)
    found = made(x)
    assert found.codes.tolist() == [[0], [1]]
    assert found.vectors.tolist() == E[:2]
    assert float((x - found.vectors).detach().square().mean()) == pytest.approx(0.025)
    assert float(found.loss.detach()) == pytest.approx(0.03125)
    assert float(perplexity(torch.bincount(found.codes.flatten(), minlength=3))) == pytest.approx(2)
    (found.vectors.sum() + found.loss).backward()
    torch.testing.assert_close(x.grad, 1 + 0.125 * (torch.tensor(X) - torch.tensor(E[:2])))
    gradient = made.codebook.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0, 0], torch.tensor([-0.1, -0.05]))
    assert gradient[0, 2].tolist() == [0, 0]


def test_a_dead_code_becomes_a_vector_of_the_batch_by_hand() -> None:
    made = three()
    made(torch.tensor(X))
    assert made.codebook[0, :2].tolist() == E[:2]
    assert made.codebook[0, 2].tolist() in torch.tensor(X).tolist()
    torch.testing.assert_close(made.usage[0], torch.tensor([0.01, 0.01, 0.02 / 3]))


def test_nothing_is_reset_in_evaluation_or_when_all_codes_are_used() -> None:
    made = three().eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.tensor(X))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    made.train()
    made(torch.tensor([*X, [5.0, 5.0]]))
    assert made.codebook[0].tolist() == E
    assert not made.fresh


def test_the_first_step_fills_a_large_codebook_with_the_batch() -> None:
    torch.manual_seed(0)
    made, x = Quantiser(512, 8, Codebook()), numbers(8, 24, 8)
    before = made.codebook.detach().clone()
    used = made.encode(x).unique().numel()
    made(x)
    changed = (made.codebook != before).any(-1)
    assert int(changed.sum()) == min(512 - used, 192) == 192
    rows = {tuple(row) for row in made.codebook[changed].tolist()}
    assert len(rows) == 192  # distinct vectors of the batch
    assert rows == {tuple(row) for row in x.flatten(0, 1).tolist()}


def test_a_code_dies_after_as_many_steps_as_the_formula_says() -> None:
    """ln(u / 1e-4) / 0.01005 steps without use: 459 from u = 0.01 (specs mbc, section 5)."""
    made = three()
    with torch.no_grad():
        made.usage[0] = torch.tensor([1.0, 1.0, 0.01])
        steps = 0
        while made.codebook[0, 2, 0] == 5:
            made.usage[0, :2] = 1
            made(torch.tensor(X))
            steps += 1
    assert steps == 459


def test_a_reset_code_stands_still_until_the_optimiser_s_next_step() -> None:
    torch.manual_seed(0)
    made, x = three(), torch.tensor(X)
    optimizer = torch.optim.Adam([made.codebook], 0.1)
    made.usage.fill_(1)
    made(torch.tensor([*X, [4.0, 4.0]])).loss.backward()  # all three get moments
    optimizer.step()
    optimizer.zero_grad()
    made.settle(optimizer)
    made.usage[0, 2] = 0
    made(x).loss.backward()
    born = made.codebook[0, 2].clone()
    optimizer.step()
    assert not torch.equal(made.codebook[0, 2], born)  # what the published code does
    made.settle(optimizer)
    assert torch.equal(made.codebook[0, 2], born)
    state = optimizer.state[made.codebook]
    assert not state["exp_avg"][0, 2].any()
    assert not state["exp_avg_sq"][0, 2].any()
    assert state["exp_avg"][0, :2].all()


def test_distances_are_float32_whatever_the_precision_around() -> None:
    """In bfloat16 a fifth of the codes of clustered vectors would change (specs mbc, trap 6)."""
    centre = numbers(1, 64) * 10
    x, rows = centre + 0.05 * numbers(500, 64, seed=1), centre + 0.05 * numbers(32, 64, seed=2)
    exact = (x.double()[:, None] - rows.double()).norm(dim=-1).argmin(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(x, rows)
    assert torch.equal(found, nearest(x, rows))
    assert float((found == exact).double().mean()) > 0.99


def test_moving_averages_by_hand() -> None:
    made = three(update="ema", reset=False)
    assert not made.codebook.requires_grad
    assert float(made(torch.tensor(X)).loss) == pytest.approx(0.25 * 0.025)  # the codes' own part is gone
    torch.testing.assert_close(made.codebook[0], torch.tensor([*X, [5.0, 5.0]]))  # first use: no weight before
    made(torch.tensor([[1.2, 1.1]]))
    # usage 0.0099 of what it was, 0.01 of the new one
    torch.testing.assert_close(made.codebook[0, 1], (0.99 * torch.tensor(X[1]) + torch.tensor([1.2, 1.1])) / 1.99)
    torch.testing.assert_close(made.codebook[0, 0], torch.tensor(X[0]))  # unused: it stays


def test_groups_are_quantised_each_by_their_own_codebook() -> None:
    torch.manual_seed(0)
    made, x = Quantiser(5, 6, Codebook(groups=3)).eval(), numbers(4, 2, 6)
    found = made(x)
    assert found.codes.shape == (4, 2, 3)
    for i in range(3):
        part = slice(2 * i, 2 * i + 2)
        assert torch.equal(found.codes[..., i], nearest(x[..., part], made.codebook[i]))
        torch.testing.assert_close(found.vectors[..., part], made.codebook[i][found.codes[..., i]])
    assert made.codebook.numel() == 5 * 6
    with pytest.raises(ConfigError, match="groups=4 must divide the language model's width, which is 6: write 3"):
        Quantiser(5, 6, Codebook(groups=4))


def test_far_apart_vectors_are_drawn_first() -> None:
    x = torch.cat([numbers(50, 2) * 0.01 + centre for centre in (0.0, 10.0, 20.0)])
    for seed in range(5):
        found = spread(x, 3, torch.Generator().manual_seed(seed))
        assert sorted(found[:, 0].round(decimals=-1).tolist()) == [0, 10, 20]
    assert len(spread(torch.ones(4, 2), 3, torch.Generator())) == 1  # no two different ones
    made = Quantiser(4, 2, Codebook())
    before = made.codebook[0, 3].clone()
    made.seed(torch.tensor(E), torch.Generator().manual_seed(0))
    assert sorted(made.codebook[0, :3].tolist()) == E
    assert torch.equal(made.codebook[0, 3], before)


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"groups=0 must be 1 or more; codebook.lr=0 must be above 0.*decay=1 must"):
        Codebook(groups=0, lr=0, decay=1)
    with pytest.raises(ConfigError, match=r"codes=1 must be in \[2, 65536\]"):
        Quantiser(1, 4, Codebook())
