"""Uniform fine-tuning: a step a document on all tokens, all weights carried, nothing can be taken out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.language.options import Lm
from clearn.parts.tuned_lm import TunedLM, read
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.state import decode, encode, freeze, thaw
from clearn.stream import Document, Query, Question, Split, Upstream
from strategies.uniform import Uniform

torch.set_num_threads(1)

DOCUMENTS = tuple(Document(f"d{i}", f"the code of {word} is 7 .") for i, word in enumerate(("river", "castle", "king")))
QUERIES = [Query("what is the code of river ?", "d0"), Query("who ?", "d1")]


def same(a: Uniform, b: Uniform) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in mine.items())


def test_each_document_is_one_step_on_all_its_tokens(context: Callable[..., Context]) -> None:
    reader, naive, ctx = Uniform(lr=1e-3, clip=0.5), TunedLM(Lm()), context()
    reader.take_in(DOCUMENTS, ctx)
    read(naive, [one.text for one in DOCUMENTS], 1e-3, 0.5)
    assert all(
        torch.equal(value, naive.net.state_dict()[name])
        for name, value in reader.prompting.student.net.state_dict().items()
    )
    assert (ctx.cost.optimizer_steps, ctx.cost.samples) == (3, 3)
    assert ctx.cost.transient == 3 * 4 * sum(p.numel() for p in naive.parameters())


def test_nothing_is_carried_before_it_reads_and_every_weight_after(context: Callable[..., Context]) -> None:
    reader = Uniform()
    assert freeze(reader.state(), reader.untouched()).nbytes == 0
    reader.take_in(DOCUMENTS[:1], context())
    frozen = freeze(reader.state(), reader.untouched())
    assert frozen.nbytes == 4 * sum(p.numel() for p in reader.parameters())  # the tied output once
    assert {reader.category(name) for name in frozen.tensors} == {"params"}
    assert not frozen.shared
    assert reader.memory is None


def test_a_rebuilt_reader_is_bit_equal_and_answers_alike(context: Callable[..., Context]) -> None:
    reader, again = Uniform(lr=1e-2), Uniform(lr=1e-2)
    reader.take_in(DOCUMENTS, context())
    again.load(thaw(decode(encode(freeze(reader.state(), reader.untouched())))), ())
    assert same(reader, again)
    assert again.answer(QUERIES) == reader.answer(QUERIES)
    reader.take_in(DOCUMENTS, context())
    again.take_in(DOCUMENTS, context())
    assert same(reader, again)


def test_what_it_read_it_can_say(context: Callable[..., Context]) -> None:
    """A document read again and again is continued word by word."""
    reader = Uniform(lr=1e-3)
    for _ in range(30):
        reader.take_in(DOCUMENTS[:1], context())
    assert reader.prompting.student.generate([reader.prompting.student.words.tokens("the code of")])[0].startswith(
        "river is 7 ."
    )


def test_documents_are_not_shown_when_it_is_asked() -> None:
    reader = Uniform()
    prompts = [reader.prompting.prompt(q.text) for q in QUERIES]
    assert reader.answer(QUERIES) == reader.prompting.student.generate(prompts)
    assert reader.read(QUERIES) == {"memory": reader.answer(QUERIES)}


def test_clearing_gives_the_checkpoint_back(context: Callable[..., Context]) -> None:
    reader = Uniform(lr=1e-2)
    reader.take_in(DOCUMENTS, context())
    reader.clear()
    assert same(reader, Uniform())
    with pytest.raises(ConfigError, match="no second copy"):
        Uniform(tune=MetaRecipe()).clear()


def test_a_document_cannot_be_forgotten(context: Callable[..., Context]) -> None:
    assert Uniform.forget is Reader.forget
    with pytest.raises(ConfigError, match="cannot forget"):
        Uniform().forget(DOCUMENTS, context())


def test_tuning_moves_all_weights_towards_the_answers(context: Callable[..., Context]) -> None:
    documents = (Document("u", "unseen"),)
    split = Split(documents, (Question("what is the code of river ?", "u", "", "seven"),))
    reader = Uniform(tune=MetaRecipe(epochs=10, lr=1e-3, batch_size=1, patience=0))
    reader.prepare(Upstream(split, split), context())
    reader.eval()
    assert reader.answer(QUERIES[:1]) == ["seven"]
    assert not reader.untouched()


@pytest.mark.parametrize(("options", "message"), [({"lr": 0.0}, "lr=0.0"), ({"clip": -1.0}, "clip=-1.0")])
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Uniform(**options)  # type: ignore[arg-type]
