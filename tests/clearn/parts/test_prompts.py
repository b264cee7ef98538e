"""Prompts: attention with a prefix against a naive loop, pools, banks and components by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from clearn.parts.prompts import (
    Components,
    PrefixBank,
    PromptPool,
    at_right_angles,
    majority,
    nearest,
)

torch.set_num_threads(1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_pool_gives_each_image_the_prompts_it_asks_for() -> None:
    pool = PromptPool(4, 2, 3)
    assert sum(p.numel() for p in PromptPool(10, 5, 768).parameters()) == 10 * 5 * 768 + 10 * 768
    assert all(-1 <= float(p.detach().min()) < 0 < float(p.detach().max()) <= 1 for p in pool.parameters())
    tokens = pool.tokens(torch.tensor([[2, 0], [3, 3]]))
    assert tokens.shape == (2, 4, 3)
    assert torch.equal(tokens[0], torch.cat([pool.prompts[2], pool.prompts[0]]))
    assert torch.equal(tokens[1, 2:], pool.prompts[3])
    with torch.no_grad():
        pool.keys.copy_(torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [1.0, 1.0, 0], [-3.0, 0, 0]]))
    torch.testing.assert_close(pool.cosines(torch.tensor([[5.0, 0, 0]])), torch.tensor([[1.0, 0, 0.5**0.5, -1.0]]))


def test_nearest_and_majority_by_hand() -> None:
    similarities = torch.tensor([[0.5, 0.9, 0.5, -1.0], [0.0, 0.0, 0.0, 0.1]])
    assert nearest(similarities, 2).tolist() == [[1, 0], [3, 0]]
    rows = torch.tensor([[1, 0], [3, 0], [3, 2]])
    assert majority(rows, 4).tolist() == [[0, 3]] * 3  # 0 and 3 twice each
    assert majority(torch.tensor([[4, 2]]), 5).tolist() == [[2, 4]]


def test_prefixes_of_an_image_are_its_own_keys_and_values() -> None:
    bank = PrefixBank((2, 5), length=3, width=4)
    for _ in range(3):
        bank.grow()
    with torch.no_grad():
        bank.rows.copy_(drawn(*bank.rows.shape))
    which = torch.tensor([2, 0, 2, 1])
    found = bank.select(which)
    assert list(found) == [2, 5]
    for place, block in enumerate((2, 5)):
        for image, version in enumerate(which.tolist()):
            assert torch.equal(found[block].keys[image], bank.rows[place, 0, version])
            assert torch.equal(found[block].values[image], bank.rows[place, 1, version])


def test_a_new_version_is_a_copy_and_the_others_stay() -> None:
    torch.manual_seed(0)
    bank = PrefixBank((0, 1), length=2, width=4)
    assert len(bank) == 0
    bank.grow()
    first = bank.rows.detach().clone()
    assert -1 <= float(first.min()) < 0 < float(first.max()) <= 1
    with torch.no_grad():
        bank.rows.add_(1)
    bank.grow()
    assert len(bank) == 2
    assert torch.equal(bank.rows[:, :, 0], first[:, :, 0] + 1)
    assert torch.equal(bank.rows[:, :, 1], bank.rows[:, :, 0])
    assert isinstance(bank.rows, nn.Parameter)


def components(*counts: int) -> Components:
    torch.manual_seed(0)
    made = Components((1, 3), length=4, width=6)
    for count in counts:
        made.grow(count)
    return made


def test_weights_are_cosines_of_the_attended_query_with_the_keys() -> None:
    parts, q = components(2, 1), drawn(5, 6)
    keys, attention = parts.all("keys"), parts.all("attention")
    found = parts.weights(q)
    assert found.shape == (2, 5, 3)
    for block in range(2):
        for m in range(3):
            naive = cosine_similarity(q * attention[block, m], keys[block, m][None], dim=1)
            torch.testing.assert_close(found[block, :, m], naive)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(parts.weights(q), found)
    assert torch.equal(parts.weights(torch.zeros(1, 6)), torch.zeros(2, 1, 3))


def test_a_prefix_is_the_weighted_sum_half_before_the_keys_half_before_the_values() -> None:
    parts, q = components(2, 1), drawn(5, 6)
    found, weights, prompts = parts.mix(q), parts.weights(q), parts.all("prompts")
    assert list(found) == [1, 3]
    for place, block in enumerate((1, 3)):
        for image in range(5):
            naive = sum(weights[place, image, m] * prompts[place, m] for m in range(3))
            assert isinstance(naive, Tensor)
            torch.testing.assert_close(found[block].keys[image], naive[:2])
            torch.testing.assert_close(found[block].values[image], naive[2:])


def test_older_components_take_part_but_are_not_trained() -> None:
    parts, q = components(2), drawn(5, 6)
    before = parts.all("prompts").detach().clone()
    parts.grow(1)
    assert torch.equal(parts.old_prompts, before)
    assert {name for name, _ in parts.named_parameters()} == {"prompts", "keys", "attention"}
    assert parts.prompts.shape == (2, 1, 4, 6)
    prefix = parts.mix(q)[1]
    (prefix.keys.sum() + prefix.values.sum()).backward()
    assert all(p.grad is not None and bool(p.grad[0].any()) for p in parts.parameters())
    kept = prefix.keys.detach().clone()
    parts.old_prompts.zero_()
    assert not torch.allclose(parts.mix(q)[1].keys, kept)
    size = sum(v.nbytes for v in components(2, 1).state_dict().values())
    assert size == 4 * 2 * 3 * (4 + 2) * 6


def test_new_components_stand_at_right_angles_to_the_old_and_to_each_other() -> None:
    parts = components(2)
    old = parts.all("keys").detach().clone()  # not orthogonal themselves, as after training
    parts.grow(3)
    parts.orthogonalise()
    for name in parts.NAMES:
        rows = parts.all(name).detach().flatten(2)
        for block in rows:
            torch.testing.assert_close(block[2:] @ block[2:].T, torch.eye(3), rtol=0, atol=1e-6)
            torch.testing.assert_close(block[:2] @ block[2:].T, torch.zeros(2, 3), rtol=0, atol=1e-5)
    assert torch.equal(parts.all("keys")[:, :2], old)
    fresh = components(3)
    fresh.orthogonalise()
    torch.testing.assert_close(fresh.skew(), torch.tensor(0.0), rtol=0, atol=1e-9)


def test_skew_by_hand() -> None:
    parts = Components((0,), length=2, width=3)
    parts.grow(2)
    with torch.no_grad():
        for name in parts.NAMES:
            getattr(parts, name).zero_()
        parts.keys[0] = torch.tensor([[1.0, 1, 0], [0, 1, 0]])  # V V^T - I = [[1, 1], [1, 0]]
    torch.testing.assert_close(parts.skew(), torch.tensor(3 / 4 + 2 * 2 / 4))  # the others are 0: V V^T - I = -I


def test_right_angles_equal_gram_and_schmidts_steps() -> None:
    old = torch.linalg.qr(drawn(8, 2))[0].T
    new = drawn(3, 8, seed=1)
    rows = [*old]
    for row in new:
        rest = row - sum((row @ other) * other for other in rows)
        rows.append(rest / rest.norm())
    torch.testing.assert_close(at_right_angles(old, new), torch.stack(rows[2:]), rtol=1e-4, atol=1e-5)


def test_more_right_angles_than_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 \+ 2 rows cannot be at right angles in 3 dimensions"):
        at_right_angles(torch.eye(3)[:2], torch.ones(2, 3))
