from __future__ import annotations

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.projection import Projection, RandomFeatures
from clearn.parts.triangles import packed, unpacked

torch.set_num_threads(1)


def made(carry: str, seed: int = 0) -> RandomFeatures:
    torch.manual_seed(seed)
    return RandomFeatures(6, Projection(50, carry))  # type: ignore[arg-type]


def test_features_are_rectified_projections_by_standard_normals() -> None:
    torch.manual_seed(0)
    drawn = RandomFeatures(100, Projection(200))
    x = torch.randn(3, 100)
    torch.testing.assert_close(drawn(x), (x @ drawn.matrix).clamp(min=0))
    n = drawn.matrix.numel()
    assert float(drawn.matrix.mean()) == pytest.approx(0, abs=4 / n**0.5)
    assert float(drawn.matrix.var()) == pytest.approx(1, abs=4 * (2 / n) ** 0.5)


@pytest.mark.parametrize(("carry", "n_bytes"), [("seed", 8), ("stored", 4 * 6 * 50)])
def test_another_learner_gets_the_same_matrix_from_what_is_carried(carry: str, n_bytes: int) -> None:
    one, other = made(carry, 0), made(carry, 1)
    x = torch.randn(3, 6)
    assert not torch.equal(one(x), other(x))
    state = one.state_dict()
    assert sum(value.nbytes for value in state.values()) == n_bytes
    other.load_state_dict(state)
    if carry == "seed":
        other.redraw()
    assert torch.equal(one(x), other(x))


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="features=0"):
        Projection(0)


def test_triangles_there_and_back() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 7)
    square = x.T @ x
    square = (square + square.T) / 2
    assert packed(square).shape == (28,)
    assert torch.equal(unpacked(packed(square), 7), square)
    assert torch.equal(unpacked(packed(square.double()), 7), square.double())
    assert 4 * 768 * 769 // 2 == 2 * 768 * 769 == 1_181_184
