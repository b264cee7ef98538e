"""Amortised contexts: sizes as in MAC's code, a bank that is a set, the prefix's layout, masks, LoRA as a no-op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from clearn.errors import ConfigError
from clearn.parts.amortising import T5, Aggregator, Amortiser, KvLora, PrefixHead, Resampler, attach, hierarchical
from clearn.parts.amortising.latents import EncoderDecoder, PositionNets
from clearn.parts.amortising.prefixes import copies
from clearn.parts.language import Encoder, FrozenLM, Lm, Prefix

torch.set_num_threads(1)

B, T, D, S = 3, 4, 16, 7


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def psi() -> Aggregator:
    torch.manual_seed(0)
    return Aggregator(D, blocks=2, heads=2, head_size=8)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_modules_are_as_large_as_those_of_the_published_code() -> None:
    """specs mbc, section 7: distilgpt2 has D 768, 6 layers, T 12, P 2; its T5-small is 512 wide."""
    with torch.device("meta"):
        assert size(Aggregator(768)) == 14_183_424
        assert size(PrefixHead(768, 12, 2, 6, 12, 64)) == 28_385_280
        assert size(PrefixHead(768, 12, 2, 6, 12, 64, "shared")) == 1_201_152
        assert size(PositionNets(12, 512, 768)) == 12 * (1024 + 2 * 513 * 768 + 769 * 768)
        assert round(size(PrefixHead(1280, 24, 2, 36, 20, 64)) / 1e6) == 284
        assert round(size(PrefixHead(4096, 24, 2, 32, 32, 128)) / 1e6) == 807
        wide = Aggregator(1280, blocks=1)
        assert size(wide) == 3 * 2 * 1280 + 4 * 1280 * 768 + 1280 + (1280 * 768 + 768) + (768 * 1280 + 1280)


def naive(psi: Aggregator, z: Tensor, bank: Tensor) -> Tensor:
    """Specs mbc, section 4, one question and one head after the other."""
    for look, feed in zip(psi.looks, psi.feeds, strict=True):
        q = layer_norm(z, (D,), look.norm.weight, look.norm.bias) @ look.query.weight.T
        seen = layer_norm(bank, (D,), look.bank_norm.weight, look.bank_norm.bias) @ look.key_value.weight.T
        k, v = seen[:, :16], seen[:, 16:]
        heads = [(q[:, s] @ k[:, s].T * 8**-0.5).softmax(1) @ v[:, s] for s in (slice(0, 8), slice(8, 16))]
        z = z + torch.cat(heads, 1) @ look.out.weight.T + look.out.bias
        inner = gelu(layer_norm(z, (D,), feed.norm.weight, feed.norm.bias) @ feed.into.weight.T + feed.into.bias)
        z = z + inner @ feed.back.weight.T + feed.back.bias
    return z


def test_the_aggregator_is_the_one_of_the_paper(psi: Aggregator) -> None:
    queries, bank = numbers(B, T, D), numbers(B, S, D, seed=1)
    expected = torch.stack([naive(psi, q, m) for q, m in zip(queries, bank, strict=True)])
    torch.testing.assert_close(psi(queries, bank), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_counts_are_the_explicit_bank(psi: Aggregator, shared: bool) -> None:
    """Specs mbc, section 6, through all blocks and heads."""
    queries, rows, counts = numbers(B, T, D), numbers(S, D, seed=1), torch.tensor([3, 0, 1, 7, 0, 2, 40])
    explicit = psi(queries, rows.repeat_interleave(counts, 0)[None])
    weights = counts.log()[None]
    counted = psi(queries, rows[None], weights) if shared else psi(queries, rows.expand(B, -1, -1), weights)
    torch.testing.assert_close(counted, explicit, atol=1e-5, rtol=0)
    torch.testing.assert_close(psi(queries, psi.cache(rows[None]), weights), explicit, atol=1e-5, rtol=0)
    assert not torch.allclose(psi(queries, rows[None]), explicit, atol=1e-3)  # weights matter


def test_a_bank_is_a_set(psi: Aggregator) -> None:
    queries, bank = numbers(B, T, D), numbers(1, S, D, seed=1)
    expected = psi(queries, bank)
    torch.testing.assert_close(psi(queries, bank.flip(1)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(psi(queries, bank.repeat(1, 3, 1)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(psi(queries, bank.expand(B, -1, -1)), expected, atol=1e-5, rtol=0)


def test_one_bank_with_weights_of_each_question(psi: Aggregator) -> None:
    """As CMT asks: log p differs from question to question, and takes gradient."""
    queries, bank = numbers(B, T, D), numbers(1, S, D, seed=1)
    weights = numbers(B, S, seed=2).requires_grad_()
    together = psi(queries, bank, weights)
    alone = torch.cat([psi(queries[b : b + 1], bank, weights[b : b + 1]) for b in range(B)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    together.square().sum().backward()
    assert weights.grad is not None
    assert bool((weights.grad.abs().sum(1) > 0).all())
    torch.testing.assert_close(weights.grad.sum(1), torch.zeros(B), atol=1e-3, rtol=0)  # a shift changes nothing


def test_an_empty_bank_leaves_the_queries(psi: Aggregator) -> None:
    queries = numbers(B, T, D)
    assert torch.equal(psi(queries, numbers(1, 0, D)), queries)
    assert torch.equal(psi(queries, psi.cache(numbers(1, 0, D))), queries)
    weights = torch.zeros(B, S)
    weights[1] = -torch.inf
    weights[0, 1:] = -torch.inf
    weights.requires_grad_()
    bank = numbers(1, S, D, seed=1).requires_grad_()
    out = psi(queries, bank, weights)
    assert torch.equal(out[1], queries[1])
    torch.testing.assert_close(out[0], psi(queries[:1], bank[:, :1])[0], atol=1e-5, rtol=0)
    out.sum().backward()
    assert bank.grad is not None
    assert bool(bank.grad.isfinite().all())
    assert bool(weights.grad.isfinite().all())  # type: ignore[union-attr]


def test_hierarchical_aggregation_reads_the_whole_bank(psi: Aggregator) -> None:
    """The published one stopped after as many entries as the question has tokens."""
    queries, bank = numbers(B, T, D), numbers(1, 7 * T, D, seed=1)
    first = [psi(queries, bank[:, i * T : (i + 2) * T]) for i in (0, 2, 4)] + [psi(queries, bank[:, 6 * T :])]
    second = [psi(queries, torch.cat(first[:2], 1)), psi(queries, torch.cat(first[2:], 1))]
    expected = psi(queries, torch.cat(second, 1))
    torch.testing.assert_close(hierarchical(psi, queries, bank, 2 * T), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hierarchical(psi, queries, bank, 7 * T), psi(queries, bank), atol=1e-5, rtol=0)
    changed = bank.clone()
    changed[:, -1] *= -1
    assert not torch.allclose(hierarchical(psi, queries, changed, 2 * T), expected, atol=1e-5)
    assert torch.equal(hierarchical(psi, queries, bank[:, :0], 2 * T), queries)


def test_the_prefix_s_layout_by_hand() -> None:
    """Specs mbc, section 13: position 0..7, two layers, two slots."""
    head = PrefixHead(1, 8, 2, 2, 1, 1)
    keys, values = head.arranged(torch.arange(8.0)[None, :, None])
    assert keys.shape == values.shape == (1, 2, 1, 2, 1)  # (b, L, H, P, h)
    assert keys[0, :, 0, :, 0].tolist() == [[0, 4], [2, 6]]
    assert values[0, :, 0, :, 0].tolist() == [[1, 5], [3, 7]]


def test_heads_share_a_position_s_vector() -> None:
    head = PrefixHead(4, 8, 2, 2, 2, 2)
    keys, _ = head.arranged(torch.arange(8.0)[None, :, None] * 10 + torch.arange(4.0))
    assert keys[0, 1, :, 0].tolist() == [[20, 21], [22, 23]]  # position 2, head by head


def test_latents_are_repeated_side_by_side() -> None:
    assert copies(5, 8) == [2, 2, 2, 1, 1]
    assert sum(copies(24, 192)) == 192
    with pytest.raises(ConfigError, match=r"latents=9 must be at most 8, 2 x 2 layers x prefix=2.*or prefix: 3"):
        PrefixHead(D, 9, 2, 2, 1, 16)


@pytest.mark.parametrize("form", ["per_position", "shared"])
@pytest.mark.parametrize("kv", [(1, 16), (1, 8)], ids=["as wide as D", "grouped queries"])
def test_a_head_is_a_residual_layer_of_each_position(form: Any, kv: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head, z = PrefixHead(D, 3, 2, 2, *kv, form), numbers(B, 3, D)
    rows = []
    for a, latent in enumerate([0, 0, 0, 1, 1, 1, 2, 2]):
        x, feed = z[:, latent], head.feed
        if form == "shared":
            x = x + feed.places[a]
            inner = feed.feed
            out = inner.back(gelu(inner.into(inner.norm(x))))
            skip = x if kv[1] == D else feed.skip(x)
        else:
            normed = layer_norm(x, (D,), feed.norm.weight[a], feed.norm.bias[a])
            out = gelu(normed @ feed.into.weight[a] + feed.into.bias[a]) @ feed.back.weight[a] + feed.back.bias[a]
            skip = x if kv[1] == D else x @ feed.skip.weight[a] + feed.skip.bias[a]
        rows.append(skip + out)
    keys, values = head(z)
    for a, row in enumerate(rows):
        slot, layer, side = a // 4, a % 4 // 2, (keys, values)[a % 2]
        torch.testing.assert_close(side[:, layer, 0, slot], row, atol=1e-5, rtol=0)


def test_latents_of_a_text_do_not_depend_on_its_pads() -> None:
    torch.manual_seed(0)
    resampler = Resampler(D, T, heads=2)
    states, mask = numbers(2, 5, D), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    out = resampler(states, mask)
    torch.testing.assert_close(out[1:], resampler(states[1:, :2], mask[1:, :2]), atol=1e-5, rtol=0)
    wild = states.clone()
    wild[1, 2:] = 1e3
    torch.testing.assert_close(resampler(wild, mask), out, atol=1e-5, rtol=0)
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    nothing = resampler(states, torch.zeros_like(mask))
    torch.testing.assert_close(nothing, resampler(states[:, :0], mask[:, :0]), atol=1e-6, rtol=0)


def test_a_resampler_knows_no_causal_order() -> None:
    """Its queries may be dealt out in any order: latents then come in that order."""
    torch.manual_seed(0)
    resampler, states, mask = Resampler(D, T, heads=2), numbers(1, 5, D), torch.ones(1, 5, dtype=torch.bool)
    before = resampler(states, mask)
    resampler.queries.data = resampler.queries.data.flip(0)
    torch.testing.assert_close(resampler(states, mask), before.flip(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("t5", [None, T5("tiny", "tiny", 64)], ids=["frozen", "t5"])
def test_a_text_s_latents_do_not_depend_on_its_neighbours(t5: T5 | None) -> None:
    torch.manual_seed(0)
    made = Amortiser(Encoder(), t5, T, 24).eval()
    texts = ["the code of river is stone", "a", "the long road to the old castle by the lake in the north"]
    for give in (made.documents, made.questions):
        together = give(texts)
        assert together.shape == (3, T, 24)
        for i, text in enumerate(texts):
            torch.testing.assert_close(together[i : i + 1], give([text]), atol=1e-5, rtol=0)
            assert torch.equal(give([text]), give([text]))
    assert not torch.allclose(made.documents(texts), made.questions(texts), atol=1e-3)


def test_a_frozen_encoder_is_shared_and_a_t5_is_trained() -> None:
    frozen, trained = Amortiser(Encoder(), None, T, 24), Amortiser(Encoder(), T5("tiny", "tiny", 64), T, 24)
    assert frozen.encoder is not None
    assert not any(parameter.requires_grad for parameter in frozen.encoder.parameters())
    assert trained.encoder is None
    trained.documents(["the code"]).square().sum().backward()
    assert isinstance(trained.document, EncoderDecoder)
    assert trained.document.queries.grad is not None
    moved = {name for name, parameter in trained.document.named_parameters() if parameter.grad is not None}
    assert {name for name, _ in trained.document.named_parameters()} == moved
    assert all(parameter.grad is None for parameter in trained.question.parameters())


def test_a_t5_s_latent_knows_those_before_it() -> None:
    torch.manual_seed(0)
    made = EncoderDecoder("t5.document", "tiny", 64, T, 24).eval()
    before = made(["the code of river"])
    made.queries.data[2] += 1
    changed = (made(["the code of river"]) - before).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False, False, True, True]


def test_a_version_is_of_all_that_makes_documents() -> None:
    torch.manual_seed(0)
    made, beside = Amortiser(Encoder(), None, T, 24), nn.Linear(2, 2)
    first = made.version(beside)
    assert first == made.version(beside)
    made.question.resampler.queries.data[0, 0] += 1  # type: ignore[union-attr]
    assert first == made.version(beside)  # questions are read anew each time
    beside.weight.data[0, 0] += 1
    second = made.version(beside)
    made.document.resampler.queries.data[0, 0] += 1  # type: ignore[union-attr]
    assert len({first, second, made.version(beside)}) == 3


def test_positions_have_networks_of_their_own() -> None:
    torch.manual_seed(0)
    nets, z = PositionNets(T, D, 24), numbers(B, T, D)
    out = nets(z)
    for i in range(T):
        normed = layer_norm(z[:, i], (D,), nets.norm.weight[i], nets.norm.bias[i])
        inner = torch.tanh(normed @ nets.into.weight[i] + nets.into.bias[i])
        own = z[:, i] @ nets.skip.weight[i] + nets.skip.bias[i] + inner @ nets.back.weight[i] + nets.back.bias[i]
        torch.testing.assert_close(out[:, i], own, atol=1e-5, rtol=0)
    assert isinstance(PositionNets(T, D, D).skip, nn.Identity)


def test_lora_is_on_keys_and_values_of_the_last_layers_alone() -> None:
    lm = FrozenLM(Lm())
    before = {name: value.clone() for name, value in lm.net.state_dict().items()}
    plain = lm.answer_logits([[5, 6]], [[7, lm.words.eos]])[0]
    name = attach(lm, KvLora(rank=2, last=1, dropout=0.0))
    trained = {key: parameter for key, parameter in lm.named_parameters() if parameter.requires_grad}
    # D 64 -> r 2 -> 32 (two key/value heads of 16), for keys and for values
    assert sum(parameter.numel() for parameter in trained.values()) == 2 * (64 * 2 + 2 * 32)
    with lm.using(name):
        assert torch.equal(lm.answer_logits([[5, 6]], [[7, lm.words.eos]])[0], plain)
        optimizer = torch.optim.Adam(trained.values(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            lm.answer_losses([[5, 6]], [[7, lm.words.eos]]).sum().backward()
            optimizer.step()
        assert not torch.equal(lm.answer_logits([[5, 6]], [[7, lm.words.eos]])[0], plain)
    assert torch.equal(lm.answer_logits([[5, 6]], [[7, lm.words.eos]])[0], plain)
    assert all(torch.equal(value, before[key]) for key, value in lm.net.state_dict().items())
    assert attach(lm, None) is None


def test_lora_takes_all_layers_where_there_are_fewer() -> None:
    lm = FrozenLM(Lm())
    attach(lm, KvLora(rank=1, last=10))
    assert sum(parameter.numel() for parameter in lm.parameters() if parameter.requires_grad) == 2 * 2 * (64 + 32)
    with pytest.raises(ConfigError, match=r"lora.rank=0 must be 1 or more; lora.dropout=1.0 must be in \[0, 1\)"):
        KvLora(rank=0, dropout=1.0)


def test_a_prefix_reaches_the_model_and_is_trained() -> None:
    torch.manual_seed(0)
    lm = FrozenLM(Lm())
    head = PrefixHead(64, 3, 2, lm.depth, lm.kv_heads, lm.head_size)
    z = numbers(2, 3, 64).requires_grad_()
    losses = lm.answer_losses([[5, 6], [8]], [[7, lm.words.eos], [9, lm.words.eos]], Prefix(*head(z)))
    losses.sum().backward()
    assert z.grad is not None
    assert bool((z.grad.abs().sum((1, 2)) > 0).all())
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_a_prefix_beside_an_opening_begins_near_the_models_own_answers() -> None:
    lm = FrozenLM(Lm())
    opening = lm.opening(2)
    head = PrefixHead(64, 3, 2, lm.depth, lm.kv_heads, lm.head_size, "shared", opening)
    plain = PrefixHead(64, 3, 2, lm.depth, lm.kv_heads, lm.head_size, "shared")
    plain.load_state_dict({name: value for name, value in head.state_dict().items() if name != "share"})
    z = numbers(4, 3, 64)
    for mine, own, whole in zip(head(z), (opening.keys, opening.values), plain(z), strict=True):
        torch.testing.assert_close(mine, own + 0.05 * whole)
    assert set(head.state_dict()) - set(plain.state_dict()) == {"share"}  # the model's own values are not carried
    asked, said = [lm.words.question("what is the code of tea ?")] * 4, [lm.words.answer("star")] * 4
    start = lm.answer_losses([[lm.words.start] * 2 + asked[0]], [said[0]])
    near, far = (lm.answer_losses(asked, said, Prefix(*one(z))) for one in (head, plain))
    assert float((near - start).detach().abs().max()) < 0.5 * float((far - start).detach().abs().max())
