"""Prompts with passages: their layout and limits, what is tuned and what is not."""

from __future__ import annotations

import pytest
import torch

from clearn.errors import ConfigError
from clearn.parts.language.options import Lm
from clearn.parts.prompting import Prompting, PromptLora, with_distractors
from clearn.stream import Document, Question, Row

torch.set_num_threads(1)

SHORT = Lm(sequence_tokens=24, document_tokens=8, new_tokens=4)


def prompting(lm: Lm = SHORT, passages: int = 1, lora: PromptLora | None = None) -> Prompting:
    torch.manual_seed(0)
    return Prompting(lm, passages, lora).eval()


def text(made: Prompting, ids: list[int]) -> str:
    return made.lm.words.tokenizer.decode(ids)


def rows(n: int) -> list[Row]:
    words = ("river", "castle", "garden", "bridge", "king", "queen")[:n]
    things = ("apple", "pear", "plum", "cherry", "lemon", "orange")
    return [
        Row(
            Document(word, f"the code of {word} is {thing} ."),
            Question(f"what is the code of {word} ?", word, "", thing),
        )
        for word, thing in zip(words, things, strict=False)
    ]


def test_a_passage_stands_before_the_question_and_the_answer_after() -> None:
    made = prompting()
    ids = made.prompt("what is the code ?", ["the code is 7 ."])
    assert ids == made.lm.words.tokens("the code is 7 .\nQuestion: what is the code ?\nAnswer:")
    assert made.prompt("what is the code ?") == made.lm.words.tokens("Question: what is the code ?\nAnswer:")


def test_passages_stand_in_order() -> None:
    made = prompting(passages=2)
    assert made.prompt("who ?", ["first .", "second ."]) == made.lm.words.tokens(
        "first .\nsecond .\nQuestion: who ?\nAnswer:"
    )


def test_a_long_passage_is_cut_and_the_question_never() -> None:
    made = prompting(passages=2)
    asked = made.lm.words.tokens("Question: what is the code ?\nAnswer:")
    for length in (6, 7, 8, 50):
        ids = made.prompt("what is the code ?", ["river " * length, "king " * length])
        kept = min(length, 7)  # document_tokens, the line end among them
        assert ids == [*made.lm.words.tokens("river " * kept + "\n" + "king " * kept + "\n"), *asked]


def test_a_long_question_loses_its_front_whatever_stands_before_it() -> None:
    made = prompting()
    question = " ".join(["river"] * 30 + ["king"])
    alone = made.prompt(question)
    assert len(alone) == SHORT.sequence_tokens - SHORT.new_tokens
    assert text(made, alone).endswith(text(made, made.lm.words.tokens("river king\nAnswer:")))
    ids = made.prompt(question, ["castle " * 40])
    assert ids[-len(alone) :] == alone
    assert len(ids) == len(alone) + 8


def test_a_loss_sees_passage_and_question_whole_at_their_limits() -> None:
    """The model cuts what is too long at its front, where the passage is: room was made for all."""
    made, (row,) = prompting(), rows(1)
    long = Row(Document("a", "castle " * 40), Question("river " * 40, "a", "", row.question.answer))
    other = Row(Document("a", "king " + "castle " * 40), long.question)
    assert made.losses([long]).item() != made.losses([other]).item()  # they differ in the first token alone


def test_losses_are_those_of_the_answers_after_their_prompts() -> None:
    made, batch = prompting(Lm()), rows(3)
    prompts = [made.prompt(row.question.text, [row.document.text]) for row in batch]
    answers = [made.lm.words.answer(row.question.answer) for row in batch]
    assert torch.equal(made.losses(batch), made.lm.answer_losses(prompts, answers))


def test_without_passages_the_document_is_not_seen() -> None:
    made, (row,) = prompting(Lm(), passages=0), rows(1)
    other = Row(Document("x", "something else"), row.question)
    assert torch.equal(made.losses([row]), made.losses([other]))


def test_distractors_by_hand() -> None:
    batch = rows(3)
    a, b, c = (row.document.text for row in batch)
    assert with_distractors(batch, 0) == [[], [], []]
    assert with_distractors(batch, 1) == [[a], [b], [c]]
    assert with_distractors(batch, 2) == [[a, b], [c, b], [c, a]]
    assert with_distractors(batch, 3) == with_distractors(batch, 7) == [[a, b, c], [c, b, a], [a, b, c]]


def test_nothing_can_be_trained_without_lora() -> None:
    assert not [p for p in prompting().parameters() if p.requires_grad]


def test_a_fresh_lora_answers_as_the_model_does() -> None:
    plain, tuned = prompting(Lm()), prompting(Lm(), lora=PromptLora())
    assert torch.equal(plain.losses(rows(3)), tuned.losses(rows(3)))
    questions, passages = [row.question.text for row in rows(3)], [[row.document.text] for row in rows(3)]
    assert plain.answer(questions, passages) == tuned.answer(questions, passages)


def test_lora_learns_to_answer_from_the_passage_and_the_model_keeps_its_bits() -> None:
    """Codes drawn anew each step, so that only the passage can tell; afterwards codes that it was never asked for."""
    made = prompting(Lm(new_tokens=2), lora=PromptLora(rank=16, alpha=32, dropout=0.0))
    before = {name: value.clone() for name, value in made.lm.net.state_dict().items()}
    things = [
        "apple",
        "pear",
        "plum",
        "cherry",
        "lemon",
        "orange",
        "grape",
        "melon",
        "berry",
        "onion",
        "potato",
        "rice",
    ]
    rng = torch.Generator().manual_seed(0)

    def draw(n: int) -> list[Row]:
        found = []
        for i in torch.randint(len(things), (n,), generator=rng).tolist():
            document = Document(things[i], f"the code of river is {things[i]} .")
            found.append(Row(document, Question("what is the code of river ?", things[i], "", things[i])))
        return found

    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        made.losses(draw(8)).mean().backward()
        optimizer.step()
    asked = draw(24)
    said = made.answer([row.question.text for row in asked], [[row.document.text] for row in asked])
    right = sum(answer == row.question.answer for answer, row in zip(said, asked, strict=True))
    assert right >= 22
    alone = made.answer([asked[0].question.text] * 2)
    assert alone[0] == alone[1]
    assert all(torch.equal(value, before[name]) for name, value in made.lm.net.state_dict().items())


def test_more_passages_than_the_model_has_positions_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="positions"):
        Prompting(Lm(), passages=8)
    with pytest.raises(ConfigError, match="k=-1"):
        Prompting(Lm(), passages=-1)
