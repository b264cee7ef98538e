"""A language model that is trained on documents: its loss and steps against torch's own, salient tokens by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clearn.errors import Diverged
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.options import Lm
from clearn.parts.tuned_lm import TunedLM, read, salient, salient_weights

torch.set_num_threads(1)

TEXTS = ["the king of the river is old .", "a code is 1 2 .", "the castle and the garden"]


def weights(lm: FrozenLM) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in lm.net.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_the_frozen_network_until_it_is_trained() -> None:
    tuned, frozen = TunedLM(Lm()), FrozenLM(Lm())
    assert tuned.pretrained_hashes == frozen.pretrained_hashes == tuned.content_hashes()
    assert all(p.requires_grad for p in tuned.net.parameters())
    read(tuned, TEXTS[:1], lr=1e-3, clip=0)
    assert not tuned.content_hashes().items() & frozen.pretrained_hashes.items()


def test_weights_are_float32_whatever_was_asked() -> None:
    lm = TunedLM(Lm(dtype="bfloat16"))
    assert {p.dtype for p in lm.net.parameters()} == {torch.float32}


def test_document_losses_are_the_models_own() -> None:
    lm = TunedLM(Lm())
    ids = lm.words.document(TEXTS[0])
    given = torch.tensor([ids])
    expected = lm.net(input_ids=given, labels=given).loss
    torch.testing.assert_close(lm.document_losses(ids).mean(), expected)
    assert lm.document_losses(ids).shape == (len(ids) - 1,)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_reading_is_one_step_of_adam_a_document(clip: float) -> None:
    lm, naive = TunedLM(Lm()), TunedLM(Lm())
    with torch.no_grad():  # as the engine calls it
        done = read(lm, TEXTS, lr=1e-3, clip=clip)
    optimizer = torch.optim.Adam(naive.net.parameters(), lr=1e-3)
    for text in TEXTS:
        ids = torch.tensor([naive.words.document(text)])
        optimizer.zero_grad()
        naive.net(input_ids=ids, labels=ids).loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(naive.net.parameters(), clip)
        optimizer.step()
    for name, value in lm.net.state_dict().items():
        torch.testing.assert_close(value, naive.net.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert done.steps == 3
    assert done.transient == 3 * 4 * sum(p.numel() for p in lm.net.parameters())
    assert all(p.grad is None for p in lm.parameters())


def test_weighted_tokens_alone_teach() -> None:
    lm, naive = TunedLM(Lm()), TunedLM(Lm())
    own = torch.tensor([0.0, 0, 0, 1, 0.5, 0])
    read(lm, TEXTS[1:2], lr=1e-3, clip=0, weigh=lambda _: own)
    optimizer = torch.optim.Adam(naive.net.parameters(), lr=1e-3)
    ids = naive.words.document(TEXTS[1])
    losses = naive.document_losses(ids)
    ((losses[2] + 0.5 * losses[3]) / 5).backward()
    optimizer.step()
    for name, value in lm.net.state_dict().items():
        torch.testing.assert_close(value, naive.net.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_documents_that_teach_nothing_take_no_step() -> None:
    lm = TunedLM(Lm())
    before = weights(lm)
    nothing = read(lm, ["king", "the garden is old"], 1.0, 0, weigh=lambda t: torch.zeros(len(lm.words.tokens(t))))
    assert nothing.steps == 0
    assert read(lm, ["king", ""], lr=1.0, clip=0).steps == 0
    first_alone = read(lm, ["2 kings"], lr=1.0, clip=0, weigh=lambda _: torch.tensor([1.0, 0.0]))
    assert (first_alone.steps, first_alone.transient) == (0, 0)
    assert equal(weights(lm), before)


def test_reset_gives_the_checkpoint_back() -> None:
    lm = TunedLM(Lm())
    before = weights(lm)
    read(lm, TEXTS, lr=1e-2, clip=0)
    assert not equal(weights(lm), before)
    lm.reset()
    assert equal(weights(lm), before)
    assert lm.content_hashes() == lm.pretrained_hashes


def test_a_loss_that_is_not_finite_is_told() -> None:
    with pytest.raises(Diverged, match=r"loss after [12] documents is (nan|inf).*lower lr=1e\+30"):
        read(TunedLM(Lm()), TEXTS, lr=1e30, clip=0)
    with pytest.raises(Diverged, match="weights after 1 documents"):
        read(TunedLM(Lm()), TEXTS[:1], lr=1e300, clip=0)


def test_salient_spans_by_hand() -> None:
    text = "In 1990s Côte d'Ivoire grew 3.5% to 2,521,534, the b2 said."
    assert [text[start:end] for start, end in salient(text)] == [
        "In", "1990s", "Côte", "Ivoire", "3.5", "2,521,534", "b2",
    ]  # fmt: skip
    assert salient("nothing here") == []


def test_salient_weights_are_of_the_tokens_that_share_a_character() -> None:
    lm = TunedLM(Lm(document_tokens=7))
    text = "the King is 12,5 old Castle"  # tokens: the King is 1 2 , 5 and no more
    assert salient_weights(lm, text).tolist() == [0, 1, 0, 1, 1, 1, 1]
    assert len(salient_weights(lm, text)) == len(lm.words.document(text))
