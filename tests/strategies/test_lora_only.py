"""LoRA only: it learns how answers look, keeps nothing of documents, and leaves the language model as it is."""

from __future__ import annotations

from typing import Any

import torch

from clearn.stream import Document, Query, Question, Row
from strategies.lora_only import LoraOnly

torch.set_num_threads(1)


def rows() -> list[Row]:
    return [
        Row(Document(name, f"the code of {name} is {word}"), Question(f"the code of {name} ?", name, "", word))
        for name, word in (("river", "stone"), ("castle", "stone"))
    ]


def test_it_learns_the_answers_style_and_moves_nothing_else(context: Any) -> None:
    torch.manual_seed(0)
    reader = LoraOnly()
    base = {name: value.clone() for name, value in reader.lm.net.state_dict().items()}
    trained = [parameter for parameter in reader.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 2 * 2 * 8 * (64 + 32)  # k and v, two layers, rank 8
    optimizer = torch.optim.Adam(trained, 1e-2)
    reader.train()
    first = float(reader.episode(rows()).detach())
    for _ in range(30):
        optimizer.zero_grad()
        reader.episode(rows()).backward()
        optimizer.step()
    reader.eval()
    assert first > 3
    assert reader.answer([Query("the code of bridge ?", "x")]) == ["stone"]  # whatever is asked
    assert all(torch.equal(value, base[name]) for name, value in reader.lm.net.state_dict().items())
    assert set(reader.state()) == {f"model/{name}" for name, _ in reader.named_parameters() if "loras" in name}


def test_it_keeps_nothing_of_documents(context: Any) -> None:
    torch.manual_seed(0)
    reader, documents = LoraOnly(), [row.document for row in rows()]
    before = {name: value.clone() for name, value in reader.state().items()}
    reader.take_in(documents, context())
    reader.forget(documents, context())
    reader.clear()
    assert not reader.controls
    assert reader.memory is None
    assert reader.state().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in reader.state().items())
    assert list(reader.read([Query("what is it ?", "river")])) == ["answer"]
