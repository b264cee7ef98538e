"""MBC: its bank is a histogram, whatever was read; a document is counted once and can be subtracted exactly."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, DataError, StateError
from clearn.ledger import Budget, account
from clearn.parts.code_memory import Keep
from clearn.parts.codebook import Codebook
from clearn.parts.language import Prefix
from clearn.recipe import MetaRecipe
from clearn.state import decode, encode, freeze, thaw
from clearn.stream import Document, Query, Question, Row, Split, TaskInfo, Upstream
from strategies.mbc import Mbc

torch.set_num_threads(1)

T, D, K = 4, 64, 16  # D is the built-in language model's width
KEPT = Keep(codes=True)
PRODUCT = {"codebook": Codebook(groups=4), "keep": KEPT}
FORMS: list[dict[str, Any]] = [{}, {"keep": Keep(index=False)}, {"keep": KEPT}, PRODUCT]


def facts(n: int) -> list[Document]:
    colours, things = ("blue", "green", "black", "white"), ("river", "castle", "garden", "market")
    pairs = [(thing, colour) for thing in things for colour in colours][:n]
    return [Document(f"d{i}", f"the code of {thing} is {colour}") for i, (thing, colour) in enumerate(pairs)]


def rows(n: int) -> list[Row]:
    return [Row(one, Question(" ".join(one.text.split()[:4]), one.id, "", one.text.split()[-1])) for one in facts(n)]


def mbc(trained: bool = True, **options: Any) -> Mbc:
    """With `trained`, one forward pass in training mode fills the codebook with context vectors."""
    torch.manual_seed(0)
    made = Mbc(**({"latents": T, "codes": K, "head": "shared"} | options))
    if trained:
        made.train()
        with torch.no_grad():
            made.episode(rows(16))
    return made.eval()


QUERIES = [Query(f"the code of {thing} ?", "") for thing in ("river", "castle", "bridge")]


def same(a: Mbc, b: Mbc) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)  # type: ignore[arg-type]


def prefixes(reader: Mbc, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the language model is given with each question, which tells more than a word does."""
    seen: list[Prefix] = []
    monkeypatch.setattr(reader.lm, "generate", lambda tokens, memory: seen.append(memory) or [""] * len(tokens))
    with torch.no_grad():
        reader.answer(QUERIES)
    return [side for one in seen for side in (one.keys, one.values)]


def close(a: list[Tensor], b: list[Tensor], atol: float = 1e-5) -> bool:
    return all(torch.allclose(x, y, atol=atol, rtol=0) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"counts": 4 * K, "index": 40, "meta": 40}),
        ({"keep": Keep(index=False)}, {"counts": 4 * K, "meta": 32}),
        ({"keep": KEPT}, {"counts": 4 * K, "index": 40, "meta": 40, "codes": 5 * 2 * T}),
        ({"keep": Keep(codes=True, packed=True)}, {"counts": 4 * K, "index": 40, "meta": 40, "codes": 5 * T // 2}),
        (PRODUCT, {"index": 40, "meta": 40, "codes": 5 * T * 4}),
    ],
    ids=str,
)
def test_bytes_are_as_the_header_says(options: dict[str, Any], expected: dict[str, int], context: Any) -> None:
    reader = mbc(**options)
    reader.take_in(facts(5), context())
    weights, held = account(freeze(reader.state()), reader.category), Counter[str]()
    for leaf in weights.leaves:
        held[leaf.category] += leaf.nbytes
    groups = reader.memory.groups
    fixed = {"codebooks": 4 * K * D, "buffers": 4 * K * groups, "params": held["params"]}
    assert held == expected | fixed
    assert weights.carried == sum(value.numel() * value.element_size() for value in reader.state().values())  # type: ignore[union-attr]
    assert not any(name.startswith("model/lm.net") or "encoder" in name for name in reader.state())


def test_a_histogram_answers_as_the_explicit_bank(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = mbc(keep=KEPT)
    reader.take_in(facts(16), context())
    assert len(reader.memory.counts.nonzero()) > 1
    with torch.no_grad():
        bank = reader.quantiser.codebook[0][reader.memory.codes().flatten()][None]  # (1, N T, D)
        z = reader.amortiser.questions([query.text for query in QUERIES])
        expected = reader.prefixes(reader.aggregator(z, bank))
    assert close(prefixes(reader, monkeypatch), list(expected))


def test_groups_of_codes_are_put_together_again(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = mbc(**PRODUCT)
    reader.take_in(facts(3), context())
    with torch.no_grad():
        vectors = torch.cat([reader.amortiser.documents([one.text]) for one in facts(3)])
        bank = reader.quantiser(vectors).vectors.flatten(0, 1)[None]
        z = reader.amortiser.questions([query.text for query in QUERIES])
        expected = reader.prefixes(reader.aggregator(z, bank))
    assert close(prefixes(reader, monkeypatch), list(expected))


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_forgetting_leaves_the_state_of_a_reader_that_never_read_it(options: dict[str, Any], context: Any) -> None:
    reader, never = mbc(**options), mbc(**options)
    reader.take_in(facts(5), context())
    reader.forget([facts(5)[1], facts(5)[4]], context())
    never.take_in([facts(5)[0], *facts(5)[2:4]], context())
    assert same(reader, never)
    reader.forget(facts(4)[::2] + facts(4)[3:], context())
    assert same(reader, mbc(**options))


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_one_entry_for_each_distinct_document(options: dict[str, Any], context: Any) -> None:
    reader, once = mbc(**options), mbc(**options)
    reader.take_in([*facts(3), *facts(2)], context())
    once.take_in(facts(3), context())
    assert same(reader, once)
    reader.take_in(facts(1), context())
    assert same(reader, once) is reader.memory.keep.index


def test_kept_codes_need_no_text_to_be_forgotten(context: Any) -> None:
    reader, never = mbc(keep=KEPT), mbc(keep=KEPT)
    reader.take_in(facts(3), context())
    reader.forget([Document("d1", "")], context())
    never.take_in(facts(3)[::2], context())
    assert same(reader, never)


@pytest.mark.parametrize("keep", [Keep(), KEPT], ids=str)
def test_a_document_that_was_never_read_cannot_be_forgotten(keep: Keep, context: Any) -> None:
    reader, again = mbc(keep=keep), mbc(keep=keep)
    for one in (reader, again):
        one.take_in(facts(3), context())
    with pytest.raises(DataError, match="1 of 2 documents to be forgotten are not in the memory of 3"):
        reader.forget(facts(4)[2:], context())
    assert same(reader, again)


def test_without_an_index_a_count_below_zero_gives_it_away(context: Any) -> None:
    reader = mbc(keep=Keep(index=False))
    reader.take_in(facts(1), context())
    with pytest.raises(StateError, match="would be counted less than 0 times"):
        reader.forget(facts(2), context())
    assert int(reader.memory.counts.sum()) == T


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_saved_reader_answers_with_the_same_bits(
    options: dict[str, Any], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = mbc(**options)
    reader.take_in(facts(5), context())
    torch.manual_seed(7)
    again = Mbc(**({"latents": T, "codes": K, "head": "shared"} | options)).eval()
    again.load(thaw(decode(encode(freeze(reader.state())))), [TaskInfo(0, ())])
    assert same(again, reader)
    assert reader.answer(QUERIES) == again.answer(QUERIES)
    ours, theirs = prefixes(reader, monkeypatch), prefixes(again, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    again.forget(facts(2), context())
    reader.forget(facts(2), context())
    assert same(again, reader)


def test_order_and_twice_as_much_of_everything_change_nothing(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, less = mbc(), mbc(), mbc()
    one.take_in(facts(6), context())
    other.take_in(facts(6)[::-1] + [Document(f"again {one.id}", one.text) for one in facts(6)], context())
    less.take_in(facts(2), context())
    assert close(prefixes(one, monkeypatch), prefixes(other, monkeypatch))
    assert not close(prefixes(one, monkeypatch), prefixes(less, monkeypatch))


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_an_empty_memory_leaves_the_question_s_own_latents(
    options: dict[str, Any], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = mbc(**options)
    with torch.no_grad():
        expected = reader.prefixes(reader.amortiser.questions([query.text for query in QUERIES]))
    reader.take_in([], context())
    assert len(reader.answer(QUERIES)) == 3
    assert close(prefixes(reader, monkeypatch), list(expected), 1e-6)
    reader.take_in(facts(3), context())
    reader.clear()
    assert same(reader, mbc(**options))


@pytest.mark.parametrize("options", [{}, PRODUCT], ids=str)
def test_random_codes_are_as_many_and_the_same_each_time(
    options: dict[str, Any], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = mbc(random_codes=True, **options)
    reader.take_in(facts(5), context())
    assert list(mbc(**options).read(QUERIES)) == ["memory"]
    given: list[int] = []
    inner = reader._answers

    def spy(questions: Any, counts: Tensor, codes: Tensor | None) -> list[str]:
        given.append(int(counts.sum()) if codes is None else len(codes) * T)
        return inner(questions, counts, codes)

    monkeypatch.setattr(reader, "_answers", spy)
    first, second = reader.read(QUERIES), reader.read(QUERIES)
    assert first == second
    assert list(first) == ["memory", "random_codes"]
    assert given == [5 * T] * 4


def test_a_document_has_the_same_codes_whatever_comes_with_it(context: Any) -> None:
    reader, alone = mbc(keep=KEPT), mbc(keep=KEPT)
    long = Document("long", "the old castle by the lake in the north is a museum of iron")
    reader.take_in([long, *facts(2)], context())
    alone.take_in(facts(2)[1:], context())
    assert torch.equal(reader.memory.codes()[2], alone.memory.codes()[0])


def test_reading_moves_no_parameter_and_no_code(context: Any) -> None:
    reader = mbc()
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    reader.train()  # codes are frozen on the stream whatever mode was left behind
    reader.take_in(facts(16), context())
    reader.forget(facts(2), context())
    assert all(torch.equal(value, before[name]) for name, value in reader.state_dict().items())


def test_a_memory_of_another_codebook_is_refused(context: Any) -> None:
    reader, other = mbc(), mbc()
    reader.take_in(facts(2), context())
    other.quantiser.codebook.data[0, 0] += 1
    with pytest.raises(StateError, match="the codes of 2 documents were made by parameters of SHA-256"):
        mbc(trained=False).load({**reader.state(), **other.model_state()}, [])


def test_a_budget_that_is_too_small_is_refused_with_numbers(context: Any) -> None:
    reader = mbc()
    reader.take_in(facts(4), context())
    needed = account(freeze(reader.state()), reader.category).carried
    mbc().take_in(facts(4), context(budget=Budget(total=needed)))
    with pytest.raises(BudgetExceeded, match=r"is 1 bytes too small for 4 documents.*raise it by 1"):
        mbc().take_in(facts(4), context(budget=Budget(total=needed - 1)))


@pytest.mark.parametrize("options", [{}, {"codebook": Codebook(update="ema")}, PRODUCT], ids=str)
def test_an_episode_trains_all_but_the_frozen_ones(options: dict[str, Any]) -> None:
    reader = mbc(head="per_position", **options).train()
    reader.episode(rows(3)).backward()
    named = dict(reader.named_parameters())
    assert [name for name, value in named.items() if value.requires_grad and value.grad is None] == []
    frozen = [name for name, value in named.items() if not value.requires_grad and "net." not in name]
    assert frozen == (["quantiser.codebook"] if reader.quantiser.options.update == "ema" else [])


def test_the_loss_is_that_of_the_answers_and_lambda_times_the_quantiser_s() -> None:
    batch, losses = rows(16)[::4], {}
    for weight in (0.0, 1.0, 3.0):
        with torch.no_grad():
            losses[weight] = float(mbc(codebook=Codebook(weight=weight)).episode(batch))
    reader = mbc()
    with torch.no_grad():
        found = reader.quantiser(reader.amortiser.documents([row.document.text for row in batch]))
        z = reader.amortiser.questions([row.question.text for row in batch])
        z = reader.aggregator(z, found.vectors.flatten(0, 1)[None])
        asked = [reader.lm.words.question(row.question.text) for row in batch]
        answers = [reader.lm.words.answer(row.question.answer) for row in batch]
        plain = float(reader.lm.answer_losses(asked, answers, Prefix(*reader.prefixes(z))).mean())
    assert losses[0.0] == pytest.approx(plain, abs=1e-5)
    assert losses[1.0] - losses[0.0] == pytest.approx(float(found.loss), abs=1e-5)
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * float(found.loss), abs=1e-5)


def test_lora_is_at_work_for_every_question(context: Any) -> None:
    """With an empty memory too; without LoRA the same prefix gives other logits."""
    reader = mbc()
    for name, parameter in reader.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    active: list[str | None] = []
    inner = reader.lm.generate

    def spy(tokens: Any, memory: Prefix) -> list[str]:
        active.append(reader.lm._active)
        return inner(tokens, memory)

    reader.lm.generate = spy  # type: ignore[method-assign]
    reader.answer(QUERIES)
    reader.take_in(facts(2), context())
    reader.answer(QUERIES)
    assert active == ["kv", "kv"]


def test_preparation_seeds_the_codebook_once_and_trains_it_at_its_own_rate(context: Any) -> None:
    told = facts(16)
    asked = [row.question for row in rows(16)]
    upstream = Upstream(Split(tuple(told[:12]), tuple(asked[:12])), Split(tuple(told[12:]), tuple(asked[12:])))
    reader = mbc(
        trained=False,
        codebook=Codebook(start="kmeans++", lr=1e-2, reset=False),
        meta=MetaRecipe(epochs=2, batch_size=6, lr=1e-3, warmup=0, clip=0),
    )
    seeded: list[Tensor] = []
    inner = reader.quantiser.seed

    def spy(vectors: Tensor, rng: torch.Generator) -> None:
        inner(vectors, rng)
        seeded.append(reader.quantiser.codebook.detach().clone())

    reader.quantiser.seed = spy  # type: ignore[method-assign]
    before = reader.amortiser.document.resampler.queries.detach().clone()  # type: ignore[union-attr]
    ctx = context()
    reader.prepare(upstream, ctx)
    assert len(seeded) == 1
    moved = (reader.quantiser.codebook.detach() - seeded[0]).abs().max()
    other = (reader.amortiser.document.resampler.queries.detach() - before).abs().max()  # type: ignore[union-attr]
    assert 5e-4 < float(other) < 5e-3  # at most 4 steps of Adam at 1e-3; the best epoch may be the first
    assert 5e-3 < float(moved) < 5e-2  # at 1e-2
    assert 1 <= ctx.cost.logged["training/perplexity"] <= K
    assert 1 <= ctx.cost.logged["training/live_codes"] <= K
    assert len(reader.memory) == 0


def test_groups_without_kept_codes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"codebook\.groups=4 needs keep\.codes: true"):
        Mbc(codebook=Codebook(groups=4))
