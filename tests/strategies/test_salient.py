"""Salient-span fine-tuning: names and numbers alone teach; the rest is uniform fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.parts.language.options import Lm
from clearn.parts.tuned_lm import TunedLM
from clearn.reader import Reader
from clearn.recipe import MetaRecipe
from clearn.state import freeze
from clearn.stream import Document, Query
from strategies.salient import Salient

torch.set_num_threads(1)

PLAIN = Document("plain", "nothing is old here")
NAMED = Document("named", "the code of River is 12 .")
QUERIES = [Query("what is the code of river ?", "d0")]


def test_the_step_is_on_the_loss_of_salient_tokens(context: Callable[..., Context]) -> None:
    reader, naive = Salient(lr=1e-3, clip=0.0), TunedLM(Lm())
    reader.take_in([NAMED], context())
    optimizer = torch.optim.Adam(naive.net.parameters(), lr=1e-3)
    losses = naive.document_losses(naive.words.document(NAMED.text))  # of: code of River is 1 2 .
    ((losses[2] + losses[4] + losses[5]) / 7).backward()
    optimizer.step()
    for name, value in reader.prompting.student.net.state_dict().items():
        torch.testing.assert_close(value, naive.net.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_document_without_names_and_numbers_teaches_nothing(context: Callable[..., Context]) -> None:
    reader, ctx = Salient(lr=1.0), context()
    reader.take_in([PLAIN], ctx)
    assert freeze(reader.state(), reader.untouched()).nbytes == 0
    assert (ctx.cost.optimizer_steps, ctx.cost.transient) == (0, 0)
    reader.take_in([PLAIN, NAMED], ctx)
    assert ctx.cost.optimizer_steps == 1


def test_every_weight_is_carried_once_it_has_read(context: Callable[..., Context]) -> None:
    reader, again = Salient(), Salient()
    reader.take_in([NAMED], context())
    frozen = freeze(reader.state(), reader.untouched())
    assert frozen.nbytes == 4 * sum(p.numel() for p in reader.parameters())
    again.load(reader.state(), ())
    assert again.answer(QUERIES) == reader.answer(QUERIES)


def test_documents_are_not_shown_when_it_is_asked() -> None:
    reader = Salient()
    assert reader.read(QUERIES) == {
        "memory": reader.prompting.student.generate([reader.prompting.prompt(QUERIES[0].text)])
    }


def test_clearing_gives_the_checkpoint_back(context: Callable[..., Context]) -> None:
    reader = Salient(lr=1e-2)
    reader.take_in([NAMED], context())
    assert not reader.untouched()
    reader.clear()
    assert freeze(reader.state(), reader.untouched()).nbytes == 0
    with pytest.raises(ConfigError, match="no second copy"):
        Salient(tune=MetaRecipe()).clear()


def test_a_document_cannot_be_forgotten(context: Callable[..., Context]) -> None:
    assert Salient.forget is Reader.forget
    with pytest.raises(ConfigError, match="cannot forget"):
        Salient().forget([NAMED], context())


@pytest.mark.parametrize(("options", "message"), [({"lr": -1.0}, "lr=-1.0"), ({"clip": -1.0}, "clip=-1.0")])
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Salient(**options)  # type: ignore[arg-type]
