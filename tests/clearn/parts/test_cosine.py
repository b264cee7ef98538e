from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from clearn.parts.cosine import CosineHead, Prototypes, cosines

torch.set_num_threads(1)


def test_cosines_by_hand_and_of_nothing() -> None:
    found = cosines(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, -0.8, 0.0], [0.0, 0.0, 0.0]]))


def test_prototypes_compare_with_class_means() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 5), torch.arange(20) % 3
    held = Prototypes(5)
    held.grow(3)
    held.add(x, y)
    means = torch.stack([x[y == label].mean(0) for label in range(3)])
    queries = torch.randn(4, 5)
    torch.testing.assert_close(held(queries), cosine_similarity(queries[:, None], means[None], dim=2))


def test_a_class_in_two_parts_equals_the_class_at_once() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(21, 5), torch.arange(21) % 3
    once, parts = Prototypes(5), Prototypes(5)
    once.grow(3)
    once.add(x, y)
    parts.grow(2)
    parts.grow(3)
    parts.add(x[:4], y[:4])
    parts.add(x[4:], y[4:])
    queries = torch.randn(4, 5)
    torch.testing.assert_close(parts(queries), once(queries))


def test_bytes_are_the_specs() -> None:
    for width, expected in ((768, 307_200), (2 * 768, 614_400)):
        held = Prototypes(width)
        held.grow(100)
        assert sum(value.nbytes for value in held.state_dict().values()) == expected


def test_a_cosine_head_starts_as_published_and_has_a_scale() -> None:
    torch.manual_seed(0)
    head = CosineHead(100, 7)
    assert float(head.weight.detach().abs().max()) <= 0.1
    assert float(head.sigma.detach()) == 1.0
    x = torch.randn(3, 100)
    with torch.no_grad():
        before = head(x)
        assert float(before.abs().max()) <= 1
        head.sigma.fill_(3.0)
    torch.testing.assert_close(head(x).detach(), 3 * before)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_mixed_precision_leaves_cosines_in_float32(dtype: torch.dtype) -> None:
    x, rows = torch.randn(3, 8), torch.randn(2, 8)
    with torch.autocast("cpu", dtype):
        assert torch.equal(cosines(x, rows), cosines(x, rows).float())
        inside = cosines(x, rows)
    assert torch.equal(inside, cosines(x, rows))
