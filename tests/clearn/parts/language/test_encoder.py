"""The frozen text encoder: each text alone, by content, and never moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from clearn.errors import ConfigError, DataError
from clearn.parts.language import Encoder, TextEncoder
from clearn.parts.language import encoder as module
from clearn.parts.language.tiny import tiny_encoder, tiny_lm

pytest.importorskip("transformers")

TEXTS = ["the code of river is lake .", "iron", "what is the code of river ?", ""]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loaded = tiny_encoder()
    loaded.net.save_pretrained(tmp_path / "bert")
    loaded.tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_states_are_the_networks_own_and_padding_is_zero() -> None:
    encoder = TextEncoder(Encoder())
    states, mask = encoder.states(TEXTS)
    assert states.shape == (4, 8, encoder.width) and mask.sum(1).tolist() == [8, 2, 8, 1]
    assert not states[~mask].any()
    for row, text in enumerate(TEXTS):
        ids = encoder.tokenizer(text, return_tensors="pt")["input_ids"]
        wanted = encoder.net(input_ids=ids).last_hidden_state[0]
        assert torch.equal(states[row, mask[row]], wanted)
    assert not states.requires_grad


def test_the_bits_of_a_text_depend_on_no_neighbour_and_on_no_cache() -> None:
    encoder, without = TextEncoder(Encoder()), TextEncoder(Encoder(cache=False))
    together, mask = encoder.states(TEXTS)
    for _ in range(2):  # the second time from the cache
        for row, text in enumerate(TEXTS):
            assert torch.equal(encoder.states([text])[0][0], together[row, mask[row]])
            assert torch.equal(without.states([text])[0][0], together[row, mask[row]])
    assert set(TEXTS) <= set(encoder._kept) and not without._kept


def test_vectors_are_unit_means_of_real_tokens() -> None:
    encoder = TextEncoder(Encoder())
    vectors = encoder.vectors(TEXTS)
    states, mask = encoder.states(TEXTS)
    means = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(vectors, means / means.norm(dim=1, keepdim=True))
    assert float(vectors[0] @ vectors[2]) > float(vectors[0] @ vectors[1])  # they share words


def test_the_cache_is_no_state_and_stops_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(Encoder())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.states(TEXTS)
    assert encoder.state_dict().keys() == before.keys() == encoder.pretrained_hashes.keys()

    one = 2 * encoder.width * 4  # the states of one word and its mark
    monkeypatch.setattr(module, "CACHE_BYTES", 3 * one)
    small = TextEncoder(Encoder())  # the empty text, half as long, is in it from the start
    small.states(["iron", "coal", "lake", "river"])
    assert list(small._kept) == ["", "iron", "coal"]
    assert sum(value.nbytes for value in small._kept.values()) <= 3 * one


def test_the_encoder_never_moves_and_stays_in_evaluation_mode() -> None:
    encoder = TextEncoder(Encoder())
    encoder.train()
    encoder.states(TEXTS)
    assert not any(inner.training for inner in encoder.net.modules())
    assert not any(value.requires_grad for value in encoder.parameters())
    assert encoder.content_hashes() == encoder.pretrained_hashes == TextEncoder(Encoder()).pretrained_hashes


def test_a_long_text_loses_its_end() -> None:
    encoder = TextEncoder(Encoder(tokens=4))
    assert encoder.states(["the code of river is lake ."])[0].shape[1] == 4
    assert torch.equal(encoder.states(["the code of river"])[0], encoder.states(["the code of lake"])[0])


def test_a_folder_is_the_same_network(folder: Path) -> None:
    built_in, read = TextEncoder(Encoder()), TextEncoder(Encoder(model=str(folder)))
    assert torch.equal(built_in.vectors(TEXTS), read.vectors(TEXTS))
    assert built_in.pretrained_hashes == read.pretrained_hashes


def test_a_pooler_is_no_part_of_it_whether_the_checkpoint_has_one_or_not(tmp_path: Path, folder: Path) -> None:
    """Its values would be drawn at random where a checkpoint has none."""
    from transformers import BertModel

    whole = BertModel(tiny_encoder().net.config)
    whole.load_state_dict(tiny_encoder().net.state_dict(), strict=False)
    whole.save_pretrained(tmp_path / "whole")
    tiny_encoder().tokenizer.save_pretrained(tmp_path / "whole")
    assert any("pooler" in key for key in load((tmp_path / "whole/model.safetensors").read_bytes()))
    encoders = [TextEncoder(Encoder(model=str(path))) for path in (folder, tmp_path / "whole")]
    assert encoders[0].pretrained_hashes == encoders[1].pretrained_hashes
    assert torch.equal(encoders[0].vectors(TEXTS), encoders[1].vectors(TEXTS))


@pytest.mark.parametrize(
    ("wrong", "says"), [({"tokens": 2}, r"encoder.tokens=2 must be 3 or more"), ({"model": " "}, r"encoder.model=' '")]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Encoder(**wrong)  # type: ignore[arg-type]


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder.tokens=513 must be at most 512"):
        TextEncoder(Encoder(tokens=513))


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    loaded = tiny_lm()
    loaded.net.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is no text encoder \(its type is llama\): take an encoder"):
        TextEncoder(Encoder(model=str(tmp_path)))


def test_a_tokenizer_without_marks_is_refused(folder: Path) -> None:
    tiny_lm().tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="puts no marks around a text"):
        TextEncoder(Encoder(model=str(folder)))


def test_folders_that_lack_or_hold_wrong_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    values = load(file.read_bytes())
    save_file(values | {"embeddings.LayerNorm.bias": torch.full((32,), float("nan"))}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="not finite"):
        TextEncoder(Encoder(model=str(folder)))
    kept = {key: value for key, value in values.items() if "layer.1." not in key}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="does not hold the weights"):
        TextEncoder(Encoder(model=str(folder)))
    file.unlink()
    with pytest.raises(DataError, match="lacks weights"):
        TextEncoder(Encoder(model=str(folder)))
