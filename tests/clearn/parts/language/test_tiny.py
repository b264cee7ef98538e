"""The built-in networks are the same everywhere, and need nothing."""

from __future__ import annotations

import pytest
import torch

from clearn.parts.language.tiny import VOCABULARY, WORDS, tiny_encoder, tiny_lm

pytest.importorskip("transformers")


def test_weights_follow_from_the_code_alone() -> None:
    for build in (tiny_lm, tiny_encoder):
        torch.manual_seed(1)
        first = build().net.state_dict()
        torch.manual_seed(2)
        second = build().net.state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_sizes_are_those_of_the_specification() -> None:
    config = tiny_lm().net.config
    assert (config.hidden_size, config.num_hidden_layers) == (64, 2)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.vocab_size == len(VOCABULARY) == len(set(VOCABULARY)) == len(WORDS) + 4
    assert (tiny_encoder().net.config.hidden_size, tiny_encoder().net.config.num_hidden_layers) == (32, 2)


def test_texts_are_cut_into_words_digits_marks_and_line_ends() -> None:
    tokenizer = tiny_lm().tokenizer
    assert tokenizer.tokenize("The Code,1207\nof  xyzzy?") == ["the", "code", ",", *"1207", "\n", "of", "<unk>", "?"]


def test_heads_hand_on_what_they_attend_to() -> None:
    """A head's output projection is the transpose of its values': attending to one token adds its own direction."""
    for layer in tiny_lm().net.model.layers:
        values, out = layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight
        for head in range(4):
            own = values[16 * (head // 2) : 16 * (head // 2 + 1)]
            assert torch.equal(out[:, 16 * head : 16 * (head + 1)], own.T)
