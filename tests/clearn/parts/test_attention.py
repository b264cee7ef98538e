"""Attention with a prefix against a naive loop, and attention of a few rows against all."""

from __future__ import annotations

import pytest
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearn.parts.attention import attend, attend_unprojected, can_stay_unprojected
from clearn.parts.prompts import Prefix

torch.set_num_threads(1)

D, HEADS = 16, 4


def attention(**options: object) -> Attention:
    torch.manual_seed(0)
    made = Attention(D, HEADS, norm_layer=nn.LayerNorm, **{"qkv_bias": True} | options)  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_by_one(attn: Attention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one image, head by head and token by token: x (n, d), keys and values (p, d) -> (n, d)."""
    rows, size = [], D // HEADS
    q, k, v = attn.qkv(x).split(D, dim=1)
    for token in range(len(x)):
        out = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            query = attn.q_norm(q[token, part])
            theirs = attn.k_norm(torch.cat([keys[:, part], k[:, part]]))  # (p + n, d / heads)
            shares = (theirs @ query / size**0.5).softmax(0)
            out.append(shares @ torch.cat([values[:, part], v[:, part]]))
        rows.append(torch.cat(out))
    y = attn.norm(torch.stack(rows))
    return attn.proj(y if attn.gate is None else y * attn.gate(x).sigmoid())


KINDS = [{}, {"qk_norm": True}, {"scale_norm": True}, {"gated": True}]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_an_empty_prefix_changes_nothing(options: dict[str, object]) -> None:
    attn, x, none = attention(**options), drawn(3, 5, D), torch.empty(3, 0, D)
    torch.testing.assert_close(attend(attn, x, Prefix(none, none)), attn(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_prefix_equals_a_loop_over_images_heads_and_tokens(options: dict[str, object]) -> None:
    attn, x = attention(**options), drawn(3, 5, D)
    prefix = Prefix(drawn(3, 2, D, seed=1), drawn(3, 2, D, seed=2))
    found = attend(attn, x, prefix)
    naive = torch.stack([one_by_one(attn, x[i], prefix.keys[i], prefix.values[i]) for i in range(3)])
    torch.testing.assert_close(found, naive, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, attn(x), atol=1e-2)


def test_a_prefix_gets_gradients_in_mixed_precision_too() -> None:
    attn, keys = attention(), drawn(1, 2, D).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attend(attn, drawn(1, 3, D), Prefix(keys, drawn(1, 2, D, seed=1))).sum().backward()
    assert keys.grad is not None
    assert keys.grad.dtype == torch.float32
    assert bool(keys.grad.any())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [{}, {"scale_norm": True}, {"gated": True}], ids=str)
@pytest.mark.parametrize("n_read", [1, 2, 5])
def test_rows_that_are_read_need_no_keys_and_values(options: dict[str, object], bias: bool, n_read: int) -> None:
    attn, x = attention(**options, qkv_bias=bias), drawn(3, 5, D).requires_grad_()
    assert can_stay_unprojected(attn)
    found = attend_unprojected(attn, x, n_read)
    expected = attn(x)[:, :n_read]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attend(attn, x, n_read=n_read), expected, rtol=1e-6, atol=1e-6)
    (ours,) = torch.autograd.grad(found.square().sum(), x)
    (timms,) = torch.autograd.grad(attn(x)[:, :n_read].square().sum(), x)
    torch.testing.assert_close(ours, timms, rtol=1e-4, atol=1e-4)


def test_normalised_keys_and_changed_projections_are_computed() -> None:
    assert not can_stay_unprojected(attention(qk_norm=True))
    wrapped = attention()
    wrapped.qkv = nn.Sequential(wrapped.qkv)
    assert not can_stay_unprojected(wrapped)


def test_one_row_takes_the_multiplications_that_are_said() -> None:
    attn, x = attention(), drawn(1, 50, D)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        attend_unprojected(attn, x, 1)
    assert counter.get_total_flops() == 2 * (3 * D**2 + 2 * HEADS * 50 * D + D**2)  # the last: attn.proj
