"""Compressors: what is trained, how much of it, and that neither padding nor a switch left on changes anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.compressors import NAME, Compression, DecoderCompressor, EncoderCompressor, compressor_for
from clearn.parts.language.encoder import Encoder
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.options import Lm

torch.set_num_threads(1)

KINDS = ["decoder", "cross", "encoder"]
SHORT, LONG = (
    "the code of the river is seven",
    "the name of the old bridge in the city is north road and it is near the lake",
)


def made(kind: Any, lm: Lm = Lm(), encoder: Encoder = Encoder(), **options: Any) -> tuple[FrozenLM, Any]:
    model = FrozenLM(lm)
    torch.manual_seed(0)
    compressor = compressor_for(model, encoder, Compression(kind=kind, **options)).eval()
    return model.eval(), compressor


def one(lm: FrozenLM, compressor: Any, text: str) -> Any:
    return compressor.document(lm, text, False)[0]


def stir(lm: FrozenLM, compressor: Any) -> None:
    """Move everything that is trained, LoRA's zero halves too, as training would."""
    with torch.no_grad():
        for parameter in [*compressor.parameters(), *lm.parameters()]:
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, depth: int) -> None:
    if kind != "cross" and depth:
        return
    lm, compressor = made(kind, depth=depth, tokens=3)
    stir(lm, compressor)
    pieces = [one(lm, compressor, text) for text in (SHORT, LONG, "river")]
    with torch.no_grad():
        together = compressor(lm, pieces)
        alone = torch.cat([compressor(lm, [piece]) for piece in pieces])
    assert together.shape == (3, 3, lm.width)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)  # it does read them


def test_a_fresh_decoder_gives_the_models_own_states_at_the_soft_tokens() -> None:
    lm, compressor = made("decoder", tokens=4)
    piece = one(lm, compressor, SHORT)
    with torch.no_grad():
        own = lm.states_after([piece], compressor.soft)
        torch.testing.assert_close(compressor(lm, [piece]), own, atol=1e-6, rtol=0)
    gap = compressor.soft.detach() - lm.mean_embedding
    assert 0.01 < float(gap.std()) < 0.03  # the mean embedding, and noise of deviation 0.02


def test_soft_tokens_see_the_whole_document_and_earlier_soft_tokens_only() -> None:
    lm, compressor = made("decoder", tokens=3)
    piece = one(lm, compressor, SHORT)
    with torch.no_grad():
        before = compressor(lm, [piece])
        other_end = compressor(lm, [[*piece[:-1], piece[0]]])
        compressor.soft[2] += 1
        after = compressor(lm, [piece])
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])
    assert not torch.allclose(before[:, 0], other_end[:, 0])


def test_lora_is_on_while_it_compresses_and_off_before_and_after() -> None:
    lm, compressor = made("decoder")
    plain = FrozenLM(Lm())
    stir(lm, compressor)
    piece, question, answer = (
        one(lm, compressor, SHORT),
        lm.words.question("what is the code ?"),
        lm.words.answer("one"),
    )
    with torch.no_grad():
        logits = plain.answer_logits([question], [answer])[0]
        assert torch.equal(lm.answer_logits([question], [answer])[0], logits)
        with_lora = compressor(lm, [piece])
        assert torch.equal(lm.answer_logits([question], [answer])[0], logits)
        with lm.using(None):  # whoever switched it off outside does not switch it off inside
            assert torch.equal(compressor(lm, [piece]), with_lora)
        without = compressor.linear(lm.states_after([piece], compressor.soft))
    assert not torch.allclose(with_lora, without, atol=1e-3)
    assert lm.generate([question]) == plain.generate([question])


def test_features_are_those_of_the_frozen_model_even_inside_of_another_lora() -> None:
    lm, compressor = made("cross", depth=2)
    lm.add_lora("other", ("q", "v"), None, 4, 8.0, 0.0)
    stir(lm, compressor)
    piece = one(lm, compressor, SHORT)
    with torch.no_grad():
        outside = compressor(lm, [piece])
        with lm.using("other"):
            assert torch.equal(compressor(lm, [piece]), outside)


def test_a_decoder_trains_as_many_numbers_as_the_spec_counts() -> None:
    rank, m = 16, 5
    lm, compressor = made("decoder", tokens=m, rank=rank)
    d, kv = lm.width, lm.kv_heads * lm.head_size
    lora = rank * ((d + d) + (d + kv) + (d + kv) + (d + d)) * lm.depth
    assert sum(p.numel() for p in lm.parameters() if p.requires_grad) == lora
    assert sum(p.numel() for p in compressor.parameters()) == m * d + d * d + d
    assert 16 * (1152 + 768 + 768 + 1152) * 30 == 1_843_200  # the same formula at SmolLM2's sizes
    assert 576 * 576 + 576 == 332_352


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_all_that_is_trained_and_nothing_else(kind: str) -> None:
    lm, compressor = made(kind, depth=1)
    if kind == "decoder":
        stir(lm, compressor)  # LoRA's A has no gradient while B is zero
    compressor(lm, [one(lm, compressor, SHORT)]).square().sum().backward()
    trained = 0
    for name, parameter in [*compressor.named_parameters(), *lm.named_parameters()]:
        if parameter.requires_grad:
            trained += 1
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
        else:
            assert parameter.grad is None, name
    assert trained >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_version_is_of_all_that_makes_a_memory(kind: str) -> None:
    lm, compressor = made(kind)
    beside = torch.eye(3)
    first = compressor.version(lm, beside)
    assert len(first) == 32
    assert made(kind)[1].version(made(kind)[0], beside) == first
    assert compressor.version(lm, beside + 1) != first
    for parameter in [*compressor.parameters(), *lm.loras.parameters()]:
        if parameter.requires_grad:
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.view(-1)[0] += 1
            assert compressor.version(lm, beside) != first
            with torch.no_grad():
                parameter.copy_(kept)
    assert compressor.version(lm, beside) == first


def test_a_long_document_loses_its_end_or_is_cut_into_pieces() -> None:
    text = " ".join(f"river{i % 3} north" for i in range(20))
    for kind in ("decoder", "cross"):
        lm, compressor = made(kind, Lm(document_tokens=7))
        ids = lm.words.tokens(text)
        assert compressor.document(lm, text, False) == [ids[:7]]
        pieces = compressor.document(lm, text, True)
        assert [token for piece in pieces for token in piece] == ids
        assert {len(piece) for piece in pieces[:-1]} == {7}
        assert 1 <= len(pieces[-1]) <= 7
        assert compressor.document(lm, "river", True) == compressor.document(lm, "river", False)
        assert len(compressor.document(lm, "", True)) == 1


def test_an_encoders_pieces_are_whole_words_that_fit_it() -> None:
    lm, compressor = made("encoder", encoder=Encoder(tokens=8))
    assert isinstance(compressor, EncoderCompressor)
    text = "the river and the lake are north of the old city and the road is near the bridge"
    words = text.split()
    pieces = compressor.document(lm, text, True)
    assert [word for piece in pieces for word in piece.split()] == words
    assert len(pieces) == 3
    assert all(len(compressor.encoder.tokenizer(piece)["input_ids"]) <= 8 for piece in pieces)
    assert compressor.document(lm, text, False) == [text]
    assert compressor.document(lm, "  river ", True) == ["  river "]
    with torch.no_grad():
        whole, parts = compressor(lm, [text]), compressor(lm, pieces)
    torch.testing.assert_close(whole[0], parts[0])  # what is not cut is read up to the same word
    assert not torch.allclose(parts[0], parts[1], atol=1e-3)


def test_an_empty_document_has_a_memory() -> None:
    for kind in KINDS:
        lm, compressor = made(kind)
        with torch.no_grad():
            memory = compressor(lm, [one(lm, compressor, "")])
        assert bool(memory.isfinite().all()), kind


def test_questions_go_through_the_same_weights() -> None:
    for kind in KINDS:
        lm, compressor = made(kind)
        with torch.no_grad():
            a = compressor(lm, [compressor.question(lm, SHORT)])
            b = compressor(lm, [one(lm, compressor, SHORT)])
        assert torch.equal(a, b), kind


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"compressor.tokens=0 must be 1 or more; compressor.dropout=1.5"):
        Compression(tokens=0, dropout=1.5)
    with pytest.raises(ConfigError, match=r"compressor.depth=3 must be in \[0, 2\]"):
        made("cross", depth=3)


def test_dropout_follows_the_compressors_mode() -> None:
    lm, compressor = made("decoder", dropout=0.5)
    assert isinstance(compressor, DecoderCompressor)
    stir(lm, compressor)
    piece = one(lm, compressor, SHORT)
    lm.train()
    with torch.no_grad():
        assert not torch.equal(compressor(lm, [piece]), compressor(lm, [piece]))
        lm.eval()
        assert torch.equal(compressor(lm, [piece]), compressor(lm, [piece]))
    assert NAME in lm.loras
