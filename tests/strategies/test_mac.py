"""MAC: what it carries, that its bank tells documents apart, and that one can be taken out without a trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, DataError, StateError
from clearn.ledger import Budget, account
from clearn.parts.amortising import T5, KvLora
from clearn.parts.bank import FIXED
from clearn.parts.language import Prefix
from clearn.state import decode, encode, freeze, nbytes, thaw
from clearn.stream import Document, Query, Question, Row, TaskInfo
from strategies.mac import Mac

torch.set_num_threads(1)

T, D = 4, 64  # the built-in language model's width
ROW = 4 * T * D + 8


def facts(n: int) -> list[Document]:
    colours, things = ("blue", "green", "black", "white"), ("river", "castle", "garden", "market")
    pairs = [(thing, colour) for thing in things for colour in colours][:n]
    return [Document(f"d{i}", f"the code of {thing} is {colour}") for i, (thing, colour) in enumerate(pairs)]


def mac(**options: Any) -> Mac:
    torch.manual_seed(0)
    return Mac(**({"latents": T, "head": "shared"} | options)).eval()


def rows(n: int) -> list[Row]:
    return [Row(one, Question(" ".join(one.text.split()[:4]), one.id, "", one.text.split()[-1])) for one in facts(n)]


QUERIES = [Query(f"the code of {thing} ?", "") for thing in ("river", "castle", "bridge")]


def same(a: Mac, b: Mac) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)  # type: ignore[arg-type]


def prefixes(reader: Mac, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the language model is given with each question, which tells more than a word does."""
    seen: list[Prefix] = []
    monkeypatch.setattr(reader.lm, "generate", lambda tokens, memory: seen.append(memory) or [""] * len(tokens))
    with torch.no_grad():
        reader.answer(QUERIES)
    return [side for one in seen for side in (one.keys, one.values)]


def close(a: list[Tensor], b: list[Tensor], atol: float = 1e-5) -> bool:
    return all(torch.allclose(x, y, atol=atol, rtol=0) for x, y in zip(a, b, strict=True))


def test_the_bank_weighs_4_t_d_bytes_a_document(context: Any) -> None:
    reader = mac()
    reader.take_in(facts(5), context())
    weights = account(freeze(reader.state()), reader.category)
    carried = {name: nbytes(value) for name, value in reader.state().items()}
    assert carried["memory/rows"] == 5 * 4 * T * D
    held = Counter[str]()
    for leaf in weights.leaves:
        held[leaf.category] += leaf.nbytes
    assert held == {"features": 5 * 4 * T * D, "index": 5 * 8, "meta": 40, "params": held["params"]}
    assert not any(name.startswith("model/lm.net") or "encoder" in name for name in reader.state())
    assert sum(carried.values()) == weights.carried


def test_reading_moves_no_parameter_and_asks_for_no_gradient(context: Any) -> None:
    reader = mac(lora=KvLora(rank=2))
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    reader.train()
    reader.take_in(facts(3), context())
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())
    assert not reader.memory.rows.requires_grad


def test_a_saved_reader_answers_with_the_same_bits(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = mac()
    reader.take_in(facts(5), context())
    torch.manual_seed(7)
    again = Mac(latents=T, head="shared").eval()
    again.load(thaw(decode(encode(freeze(reader.state())))), [TaskInfo(0, ())])
    assert same(again, reader)
    assert reader.answer(QUERIES) == again.answer(QUERIES)
    ours, theirs = prefixes(reader, monkeypatch), prefixes(again, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_order_of_documents_changes_nothing_and_documents_do(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, less = mac(), mac(), mac()
    one.take_in(facts(5), context())
    other.take_in(facts(5)[::-1], context())
    less.take_in(facts(4), context())
    assert close(prefixes(one, monkeypatch), prefixes(other, monkeypatch))
    assert not close(prefixes(one, monkeypatch), prefixes(less, monkeypatch))


def test_an_empty_bank_leaves_the_question_s_own_latents(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (mac(), mac(group=2)):
        with torch.no_grad():
            keys, values = reader.prefixes(reader.amortiser.questions([query.text for query in QUERIES]))
        reader.take_in([], context())
        assert len(reader.answer(QUERIES)) == 3
        assert close(prefixes(reader, monkeypatch), [keys, values], 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_groups_are_read_as_they_are_defined(n: int, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = mac(), mac(group=2)
    whole.take_in(facts(n), context())
    parts.take_in(facts(n), context())
    assert close(prefixes(whole, monkeypatch), prefixes(parts, monkeypatch)) is (n <= 2)
    with torch.no_grad():
        z = parts.amortiser.questions([query.text for query in QUERIES])
        bank = [document[None] for document in parts.memory.vectors()]  # n of (1, T, D)
        while len(bank) > 2:
            bank = [parts.aggregator(z, torch.cat(bank[i : i + 2], 1)) for i in range(0, len(bank), 2)]
        expected = parts.prefixes(parts.aggregator(z, torch.cat(bank, 1)))
    assert close(prefixes(parts, monkeypatch), list(expected))


def test_one_entry_for_each_distinct_document(context: Any) -> None:
    reader, once = mac(), mac()
    reader.take_in([*facts(3), *facts(2)], context())
    reader.take_in(facts(1), context())
    once.take_in(facts(3), context())
    assert same(reader, once)


def test_a_document_has_the_same_bits_whatever_comes_with_it(context: Any) -> None:
    reader, alone = mac(), mac()
    reader.take_in(
        [Document("long", "the old castle by the lake in the north is a museum of iron"), *facts(2)], context()
    )
    alone.take_in(facts(2)[1:], context())
    assert torch.equal(reader.memory.rows[2], alone.memory.rows[0])


def test_forgetting_leaves_the_state_of_a_reader_that_never_read_it(context: Any) -> None:
    reader, never = mac(), mac()
    reader.take_in(facts(5), context())
    reader.forget([facts(5)[1], facts(5)[4]], context())
    never.take_in([facts(5)[0], *facts(5)[2:4]], context())
    assert same(reader, never)
    reader.forget(facts(4)[::2] + facts(4)[3:], context())
    assert same(reader, mac())


def test_a_document_that_was_never_read_cannot_be_forgotten(context: Any) -> None:
    reader, again = mac(), mac()
    for one in (reader, again):
        one.take_in(facts(3), context())
    with pytest.raises(DataError, match="1 of 2 documents to be forgotten are not in the bank of 3"):
        reader.forget(facts(4)[2:], context())
    assert same(reader, again)
    capped = mac(capacity=2)
    capped.take_in(facts(3), context())
    capped.forget(facts(3), context())  # one of them gave way, which cannot be told from never read
    assert len(capped.memory) == 0


def test_the_budget_says_how_many_documents_stay(context: Any) -> None:
    reader = mac()
    fixed = account(freeze(reader.model_state()), reader.category).carried
    budget = Budget(total=fixed + FIXED + 3 * ROW + ROW - 1)
    reader.take_in(facts(16), context(budget=budget))
    assert len(reader.memory) == 3
    assert account(freeze(reader.state()), reader.category).carried == fixed + FIXED + 3 * ROW
    with pytest.raises(BudgetExceeded, match="an empty one takes 40"):
        reader.take_in(facts(1), context(budget=Budget(total=fixed)))


def test_chance_prunes_the_bank_in_the_same_way_after_a_rebuild(context: Any) -> None:
    straight, rebuilt = mac(capacity=4), mac(capacity=4)
    for step in range(2):
        part = facts(16)[8 * step : 8 * step + 8]
        straight.take_in(part, context(step=step))
        fresh = mac(capacity=4)
        fresh.load(rebuilt.state(), [])
        fresh.take_in(part, context(step=step))
        rebuilt = fresh
    assert same(straight, rebuilt)
    assert len(straight.memory) == 4
    assert straight.memory.met == 16


def test_a_bank_of_other_networks_is_refused(context: Any) -> None:
    reader, other = mac(), mac()
    reader.take_in(facts(2), context())
    other.amortiser.document.positions.back.bias.data += 1  # type: ignore[union-attr]
    state = {**reader.state(), **other.model_state()}
    with pytest.raises(StateError, match="2 memories were made by parameters of SHA-256"):
        mac().load(state, [])
    moved = mac()
    moved.load(reader.state(), [])
    moved.amortiser.document.positions.back.bias.data += 1  # type: ignore[union-attr]
    with pytest.raises(StateError, match="2 memories were made by parameters of SHA-256"):
        moved.take_in(facts(3), context())


@pytest.mark.parametrize("options", [{}, {"t5": T5("tiny", "tiny", 64)}, {"lora": KvLora()}], ids=str)
def test_an_episode_trains_all_but_the_frozen_ones(options: dict[str, Any]) -> None:
    reader = mac(head="per_position", **options).train()
    loss = reader.episode(rows(3))
    assert loss.ndim == 0
    loss.backward()
    unmoved = {
        name for name, parameter in reader.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert unmoved == set()
    frozen = {name for name, parameter in reader.named_parameters() if not parameter.requires_grad}
    assert all(name.startswith(("lm.net", "amortiser.encoder.net")) for name in frozen)
    assert (len(frozen) > 0) and all(p.grad is None for n, p in reader.named_parameters() if n in frozen)


def test_questions_share_the_bank_of_their_batch() -> None:
    reader, batch = mac(), rows(16)[::4]
    with torch.no_grad():
        bank = reader.amortiser.documents([row.document.text for row in batch]).flatten(0, 1)[None]
        losses = []
        for row in batch:
            z = reader.aggregator(reader.amortiser.questions([row.question.text]), bank)
            answer = reader.lm.words.answer(row.question.answer)
            asked = reader.lm.words.question(row.question.text)
            losses.append(reader.lm.answer_losses([asked], [answer], Prefix(*reader.prefixes(z))))
        torch.testing.assert_close(reader.episode(batch), torch.cat(losses).mean(), atol=1e-5, rtol=0)


def test_backpropagation_dropout_keeps_the_distractors_and_drops_their_gradient() -> None:
    """Half of four documents: two questions, a bank of four."""
    reader, batch = mac(with_gradient=0.5), rows(16)[::4]
    encoded: list[tuple[int, bool]] = []
    inner = reader.amortiser.documents

    def spy(texts: list[str]) -> Tensor:
        encoded.append((len(texts), torch.is_grad_enabled()))
        return inner(texts)

    reader.amortiser.documents = spy  # type: ignore[method-assign]
    reader.episode(batch).backward()
    assert encoded == [(2, True), (2, False)]
    whole = mac()
    with torch.no_grad():
        bank = whole.amortiser.documents([row.document.text for row in batch]).flatten(0, 1)[None]
        z = whole.aggregator(whole.amortiser.questions([row.question.text for row in batch[:2]]), bank)
        asked = [whole.lm.words.question(row.question.text) for row in batch[:2]]
        answers = [whole.lm.words.answer(row.question.answer) for row in batch[:2]]
        expected = whole.lm.answer_losses(asked, answers, Prefix(*whole.prefixes(z))).mean()
        torch.testing.assert_close(reader.episode(batch), expected, atol=1e-5, rtol=0)


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"latents=0 must be 1 or more; group=1 must be 2 or more documents, or agg"):
        Mac(latents=0, group=1)


CODES = {
    "river": ("stone", "light", "door", "table"),
    "garden": ("lion", "tiger", "wolf", "bear"),
    "window": ("gold", "silver", "iron", "copper"),
    "paper": ("apple", "pear", "plum", "cherry"),
}
"""16 one-fact documents: which of four codes a thing has is known from the bank alone."""


@pytest.mark.slow
def test_it_answers_from_its_own_document_among_four_and_by_chance_from_a_foreign_bank(context: Any) -> None:
    """25 s of processor time: nothing is learned for 700 steps, and then all of it within 200."""

    def drawn(rng: torch.Generator) -> list[Row]:
        picked = [(thing, codes[int(torch.randint(4, (), generator=rng))]) for thing, codes in CODES.items()]
        return [
            Row(
                Document(f"{thing} {code}", f"the code of {thing} is {code}"),
                Question(f"what is the code of {thing} ?", f"{thing} {code}", "", code),
            )
            for thing, code in picked
        ]

    torch.manual_seed(0)
    reader, rng, recent = Mac(latents=2, prefix=1, blocks=1).train(), torch.Generator().manual_seed(0), 9.0
    optimizer = torch.optim.Adam([p for p in reader.parameters() if p.requires_grad], 2e-4)
    for _ in range(4000):
        loss = reader.episode(drawn(rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        recent += 0.05 * (float(loss.detach()) - recent)
        if recent < 0.1:
            break

    right = {"own": 0, "foreign": 0, "none": 0}
    for _ in range(32):
        asked, foreign = drawn(rng), drawn(rng)
        for bank, read in (("own", asked), ("foreign", foreign), ("none", [])):
            reader.clear()
            reader.take_in([row.document for row in read], context())
            answers = reader.answer([row.question.query for row in asked])
            right[bank] += sum(said == row.question.answer for said, row in zip(answers, asked, strict=True))
    assert right["own"] > 0.9 * 128
    # one in four by chance: 32 of 128, with a standard error of 4.9, of which we allow four
    assert right["foreign"] < 32 + 20
    assert right["none"] < 32 + 20
