"""CMT: the numbers of its spec, the promises of its bank, and that it learns to find and to tell facts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from clearn.errors import ConfigError, StateError
from clearn.ledger import CATEGORIES, account
from clearn.parts.amortising.awareness import aware, distill, margin
from clearn.parts.bank import FIXED, Storage
from clearn.parts.compressors import Compression
from clearn.parts.hashing import key
from clearn.parts.language.contrast import contrasted, plausible
from clearn.parts.language.encoder import Encoder
from clearn.parts.language.frozen_lm import FrozenLM
from clearn.parts.language.memories import Embeds
from clearn.parts.language.options import Lm
from clearn.parts.language.tiny import WORDS
from clearn.recipe import MetaRecipe
from clearn.state import decode, encode, freeze, thaw
from clearn.stream import Document, Query, Question, Row, Split, Upstream
from strategies.cmt import Asking, Cmt, Gathering, Objective

torch.set_num_threads(1)

NAMES = [word for word in WORDS if word.isalpha() and len(word) > 3][:40]
VALUES = [word for word in WORDS if word.isalpha() and len(word) > 3][60:76]
KINDS = ["decoder", "cross", "encoder"]
M, D = 2, 64


class Room:
    """What a reader asks of its context when it reads."""

    def __init__(self, room: int | None = None, seed: int = 0) -> None:
        self.left, self.seed = room, seed

    def rng(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def room(self, reader: Cmt, state: dict[str, Tensor]) -> int | None:
        return self.left


def facts(n: int, seed: int = 0, tag: str = "") -> list[Row]:
    rng = random.Random(f"{seed}{tag}")
    found = []
    for i, name in enumerate(rng.sample(NAMES, n)):
        value = rng.choice(VALUES)
        document = Document(f"{tag}{seed}-{i}", f"the code of {name} is {value}")
        found.append(Row(document, Question(f"what is the code of {name} ?", document.id, "code", value, "name")))
    return found


def made(kind: Any = "cross", /, stirred: bool = True, **options: Any) -> Cmt:
    """A reader whose trained weights were all moved, as if it had been trained."""
    torch.manual_seed(0)
    options = {
        "lm": Lm(new_tokens=3),
        "compressor": Compression(kind, tokens=M, blocks=1),
        "gather": Gathering(head_size=8, blocks=1),
        **options,
    }
    reader = Cmt(**options)
    if stirred:
        with torch.no_grad():
            for parameter in reader.parameters():
                if parameter.requires_grad and parameter.ndim:
                    parameter += 0.05 * torch.randn_like(parameter)
    return reader.eval()


def reading(reader: Cmt, rows: Sequence[Row], room: Any = None) -> Cmt:
    reader.take_in([row.document for row in rows], room or Room())
    return reader


def queries(rows: Sequence[Row]) -> list[Query]:
    return [row.question.query for row in rows]


@torch.no_grad()
def gathered(reader: Cmt, text: str, k: int | None = None) -> Tensor:
    """(m, D): M* of one question, as `answer` injects it."""
    seen: list[Tensor] = []
    before, reader._injected = reader._injected, lambda z: (seen.append(z), before(z))[1]  # type: ignore[method-assign]
    try:
        reader.answer([Query(text, "")])
    finally:
        del reader._injected  # type: ignore[method-assign]
    return seen[0][0]


# The objective.


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    l1 = torch.tensor([[[2.0, 0.0, 0.0]]], requires_grad=True)
    return l1, torch.tensor([[[1.0, 1.0, 0.0]]]), torch.tensor([[0]]), torch.tensor([[True]])


@pytest.mark.parametrize(("alpha", "loss"), [(0.0, 0.23954), (1.0, 0.06588)])
def test_the_aware_loss_by_hand(alpha: float, loss: float) -> None:
    assert aware(*case(), alpha).item() == pytest.approx(loss, abs=5e-6)


def test_a_memory_that_does_nothing_costs_the_base_loss_whatever_alpha_is() -> None:
    _, l0, targets, mask = case()
    for alpha in (0.0, 0.5, 1.0, 7.0):
        assert aware(l0, l0, targets, mask, alpha).item() == pytest.approx(0.86199, abs=5e-6)


def test_gradient_of_the_aware_loss_by_hand() -> None:
    l1, *rest = case()
    aware(l1, *rest, 1.0).sum().backward()
    assert l1.grad is not None
    torch.testing.assert_close(l1.grad[0, 0], torch.tensor([-0.12752, 0.03430, 0.09323]), atol=6e-6, rtol=0)
    assert l1.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_losses_are_means_over_real_tokens() -> None:
    rng = torch.Generator().manual_seed(0)
    l1, l0 = torch.randn(2, 3, 5, generator=rng), torch.randn(2, 3, 5, generator=rng)
    targets, mask = torch.randint(5, (2, 3), generator=rng), torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.bool)

    def ce(logits: Tensor, b: int, t: int) -> Tensor:
        return -logits[b, t].log_softmax(0)[targets[b, t]]

    for b, r in ((0, 3), (1, 1)):
        ours, theirs = (torch.stack([ce(l, b, t) for t in range(r)]).mean() for l in (l1, l0))  # noqa: E741
        found = aware(l1, l0, targets, mask, 0.5)[b]
        torch.testing.assert_close(found, torch.stack([ce(1.5 * l1 - 0.5 * l0, b, t) for t in range(r)]).mean())
        for nats in (0.0, 1.0, 9.0):
            short = max(0.0, nats - float(theirs - ours))
            torch.testing.assert_close(margin(l1, l0, targets, mask, 0.5, nats)[b], ours + 0.5 * short)
        kl = torch.stack(
            [kl_div(l1[b, t].log_softmax(0), l0[b, t].softmax(0), reduction="sum") for t in range(r)]
        ).mean()
        torch.testing.assert_close(distill(l1, l0, targets, mask, 0.5)[b], ours + 0.5 * kl)
        assert aware(l1, l0, targets, mask, 0.0)[b].item() == pytest.approx(float(ours), abs=1e-6)


def test_a_margin_that_is_reached_adds_nothing() -> None:
    l1, l0, targets, mask = case()  # the memory gains 0.86199 - 0.23954 nats
    assert margin(l1, l0, targets, mask, 0.5, 0.6).item() == pytest.approx(0.23954, abs=5e-6)
    assert margin(l1, l0, targets, mask, 0.5, 1.0).item() == pytest.approx(0.23954 + 0.5 * (1 - 0.62245), abs=1e-5)


def test_contrast_rules_out_what_the_memory_makes_unlikely() -> None:
    l1, l0 = torch.tensor([[5.0, 4.0, 0.0]]), torch.tensor([[5.0, 4.5, -90.0]])
    assert contrasted(l1, l0, 1.0).argmax().item() == 2  # both find it unlikely, alpha makes it the winner
    kept = plausible(contrasted(l1, l0, 1.0), l1)
    assert kept.argmax().item() == 0
    assert kept.isneginf().tolist() == [[False, False, True]]


@pytest.mark.parametrize("kind", ["aware", "margin", "distill"])
def test_logits_without_memory_are_computed_once_a_row_and_alone(kind: Any) -> None:
    reader, rows = made(objective=Objective(kind)), facts(3)
    asked: list[int] = []
    own = reader.lm.answer_logits

    def spy(questions: Any, answers: Any, memory: Any = None) -> Any:
        asked.append(len(questions))
        return own(questions, answers, memory)

    reader.lm.answer_logits = spy  # type: ignore[method-assign]
    first = reader.episode(rows)
    assert sorted(asked) == [1, 1, 1, 3]
    again = reader.episode(rows)
    assert sorted(asked) == [1, 1, 1, 3, 3]
    assert torch.equal(first, again)
    reader.unaided.kept, reader.unaided.room = {}, 0  # nothing may be kept: slower, with the same bits
    assert torch.equal(reader.episode(rows), first)
    assert not reader.unaided.kept


def test_logits_without_memory_are_those_of_the_plain_model() -> None:
    reader, (row,) = made("decoder"), facts(1)
    lm = FrozenLM(Lm())
    question, answer = lm.words.question(row.question.text), lm.words.answer(row.question.answer)
    with torch.no_grad():
        assert torch.equal(reader.unaided.without(row), lm.answer_logits([question], [answer])[0][0])
        read = [*lm.words.tokens(row.document.text), *lm.words.tokens("\n")]
        taught = lm.answer_logits([[*read, *question]], [answer])[0][0]
        torch.testing.assert_close(reader.unaided.taught(row), taught, atol=1e-5, rtol=1e-5)


# What moves, and what does not.


@pytest.mark.parametrize("inject", ["embed", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_language_model_stays_bit_equal_and_all_the_rest_learns(kind: str, inject: Any) -> None:
    reader = made(
        kind,
        gather=Gathering(head_size=8, blocks=1, inject=inject, k=2),
        objective=Objective(reconstruct=0.1),
    ).train()
    plain, question = FrozenLM(Lm(new_tokens=3)), [reader.lm.words.question("what is the code of north ?")]
    trained = {name: p for name, p in reader.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        reader.episode(facts(4, seed)).backward()
        optimizer.step()
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert not torch.equal(parameter, before[name]), name
    assert not any(name.startswith("lm.net") for name in trained)
    for name, value in plain.net.state_dict().items():
        assert torch.equal(reader.lm.net.state_dict()[name], value), name
    reader.eval()
    answer = [reader.lm.words.answer("north")]
    with torch.no_grad():
        assert torch.equal(reader.lm.answer_logits(question, answer)[0], plain.answer_logits(question, answer)[0])
    assert not any(name.startswith("model/lm.net") for name in reader.state())


def test_gradient_reaches_the_scores_by_the_log_weights_alone() -> None:
    reader = made(objective=Objective(match=0.0)).train()
    reader.episode(facts(4)).backward()
    assert reader.matcher.query.grad is not None
    assert float(reader.matcher.query.grad.abs().max()) > 0
    assert float(reader.matcher.log_tau.grad.abs()) > 0  # type: ignore[union-attr]
    off = made(gather=Gathering(head_size=8, blocks=1, match=False)).train()
    off.episode(facts(4)).backward()
    assert off.matcher.query.grad is None


def test_rows_of_one_document_are_all_positive() -> None:
    row, other = facts(2)
    with torch.no_grad():
        weight = made(gather=Gathering(head_size=8, blocks=1, k=2), objective=Objective(match=50.0))
        alike = [row, Row(row.document, Question("where ?", row.document.id, "", "north")), row]
        plain = made(gather=Gathering(head_size=8, blocks=1, k=2), objective=Objective(match=0.0))
        assert weight.episode(alike).item() == pytest.approx(plain.episode(alike).item(), abs=1e-4)  # none is wrong
        assert weight.episode([row, other]).item() > plain.episode([row, other]).item() + 1
        alone = plain.episode([row]).item()
        assert weight.episode([row]).item() == pytest.approx(alone, abs=1e-5)  # nor in a batch of one


def test_the_right_memory_is_forced_in_the_first_half_only() -> None:
    reader, rows = made(gather=Gathering(head_size=8, blocks=1, k=1)), facts(6)
    chosen: list[Tensor] = []
    own = reader._gathered

    def spy(asked: Tensor, memories: Tensor, scores: Tensor | None) -> Tensor:
        chosen.append(memories.detach())
        return own(asked, memories, scores)

    reader._gathered = spy  # type: ignore[method-assign]
    reader.forced_until = 2
    with torch.no_grad():
        reader.matcher.query.neg_()  # so that the worst match first
        mine = reader._documents([reader.lm.words.tokens(row.document.text) for row in rows], 6)
        reader.episode(rows)
        assert int(reader.steps) == 0  # evaluation neither counts nor forces
        reader.train()
        for _ in range(3):
            reader.episode(rows)
    assert int(reader.steps) == 3
    right = [torch.allclose(found[:, 0], mine, atol=1e-5) for found in chosen]
    assert right == [False, True, True, False]


def test_preparing_trains_on_a_bank_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = made(
        bank=Storage("int8", capacity=1),
        asking=Asking(k=1, contrast=True),
        meta=MetaRecipe(epochs=3, batch_size=2),
    )
    bank, asking = reader.memory, reader.asking
    rows = facts(5)
    split = Split(tuple(row.document for row in rows), tuple(row.question for row in rows))

    class Trainer(Room):
        def meta_train(self, learner: Cmt, upstream: Upstream, recipe: MetaRecipe, loss: Any) -> None:
            assert (learner.memory.form, learner.asking, learner.forced_until) == ("float32", Asking(), 4)  # 9 / 2
            reading(learner, rows, Room(0))  # no budget binds
            assert len(learner.memory) == 5
            loss(rows[:2])
            assert learner.unaided.kept

    reader.prepare(Upstream(split, split), Trainer())  # type: ignore[arg-type]
    assert reader.memory is bank
    assert reader.asking is asking
    assert (len(bank), reader.unaided.kept) == (0, {})


def test_a_real_preparation(context: Any) -> None:
    rows = facts(6)
    split = Split(tuple(row.document for row in rows), tuple(row.question for row in rows))
    reader = made(meta=MetaRecipe(epochs=2, batch_size=3, lr=1e-3, val_questions=3), stirred=False)
    before = reader.matcher.query.detach().clone()
    reader.prepare(Upstream(split, split), context())
    assert len(reader.memory) == 0
    assert not torch.equal(reader.matcher.query, before)
    assert int(reader.steps) in (2, 4)  # the better epoch's


# The bank.


@pytest.mark.parametrize("kind", KINDS)
def test_reading_leaves_parameters_alone_and_no_text(kind: str) -> None:
    reader = made(kind)
    before = {name: value.clone() for name, value in reader.model_state().items()}  # type: ignore[union-attr]
    reading(reader, facts(3))
    reader.answer(queries(facts(3)))
    after = reader.model_state()
    assert all(torch.equal(torch.as_tensor(after[name]), torch.as_tensor(value)) for name, value in before.items())
    assert set(reader.state()) - set(before) == {f"memory/{n}" for n in ("ids", "rows", "keys", "met", "version")}


@pytest.mark.parametrize(("dtype", "vectors"), [("float32", 4 * M * D), ("bfloat16", 2 * M * D), ("int8", M * (D + 2))])
def test_bytes_of_the_bank(dtype: Any, vectors: int) -> None:
    reader = reading(made(bank=Storage(dtype)), facts(5))
    weights = account(freeze(reader.state(), reader.untouched()), reader.category)
    held = [leaf for leaf in weights.leaves if leaf.owner == "memory"]
    assert sum(leaf.nbytes for leaf in held) == reader.memory.weigh(5) == 5 * (vectors + 2 * D + 8) + FIXED
    if dtype == "bfloat16":  # specs "cmt", section 12
        rows = {leaf.name: leaf.nbytes for leaf in held}
        assert rows["memory/rows"] + rows["memory/keys"] == 5 * (M + 1) * D * 2
    assert {leaf.category for leaf in held} == {"features", "keys", "index", "meta"}
    assert {leaf.category for leaf in weights.leaves} <= set(CATEGORIES)
    assert not any(
        leaf.name.startswith("model/lm.net") for leaf in weights.leaves if leaf.category != "shared_pretrained"
    )


def test_the_same_document_twice_is_kept_once_or_twice() -> None:
    rows = facts(3)
    assert len(reading(reading(made(), rows), rows[:2]).memory) == 3
    assert len(reading(reading(made(bank=Storage(dedupe=False)), rows), rows[:2]).memory) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_has_the_same_bits_whoever_is_read_beside_it(kind: str) -> None:
    rows = facts(5)
    together, alone = reading(made(kind), rows), made(kind)
    for row in rows:
        reading(alone, [row])
    assert torch.equal(together.memory.rows, alone.memory.rows)
    assert torch.equal(together.memory.keys, alone.memory.keys)


@pytest.mark.parametrize("inject", ["embed", "prefix"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_was_written_and_read_gives_the_same_answers(kind: str, inject: Any) -> None:
    options: dict[str, Any] = {"gather": Gathering(head_size=8, blocks=1, inject=inject)}
    reader, rows = reading(made(kind, **options), facts(6)), facts(6)
    blob = encode(freeze(reader.state(), reader.untouched()))
    back = made(kind, stirred=False, **options)
    back.load(thaw(decode(blob)), [])
    assert back.eval().answer(queries(rows)) == reader.answer(queries(rows))
    assert torch.equal(gathered(back, rows[0].question.text), gathered(reader, rows[0].question.text))


def test_a_bank_of_another_compressor_is_refused() -> None:
    reader = reading(made("decoder"), facts(2))
    state = dict(reader.state())
    for name in ("model/compressor.soft", "model/matcher.key", next(n for n in state if "lora_B" in n)):
        changed = {**state, name: torch.as_tensor(state[name]) + 1}
        with pytest.raises(StateError, match="could not read them"):
            made("decoder", stirred=False).load(changed, [])
    psi = next(n for n in state if n.startswith("model/aggregator") and "out.weight" in n)
    made("decoder", stirred=False).load({**state, psi: torch.as_tensor(state[psi]) + 1}, [])  # it makes no memory


def test_a_budget_in_bytes_is_room_for_documents() -> None:
    reader, rows = made(), facts(9)
    reading(reader, rows, Room(FIXED + 4 * reader.memory.row_bytes + 3))
    assert (len(reader.memory), reader.memory.met) == (4, 9)
    fewer = made(bank=Storage(capacity=2, evict="fifo"))
    assert reading(fewer, rows, Room(10**6)).memory.ids.tolist() == [key(row.document.id) for row in rows[-2:]]


def test_forgetting_is_never_having_read() -> None:
    rows = facts(6)
    reader, never = reading(made(), rows), reading(made(), [rows[i] for i in (0, 1, 3, 5)])
    reader.forget([rows[2].document, rows[4].document], Room())  # type: ignore[arg-type]
    ours, theirs = reader.state(), never.state()
    assert all(torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])) for name in theirs)
    assert reader.answer(queries(rows)) == never.answer(queries(rows))
    reader.forget([rows[i].document for i in (0, 1, 3, 5)], Room())  # type: ignore[arg-type]
    assert torch.equal(gathered(reader, "what ?"), gathered(made(), "what ?"))
    merged = reading(made(bank=Storage(capacity=2, evict="merge")), rows)
    assert (merged.memory.ids == -1).any()
    with pytest.raises(ConfigError, match="cannot be taken apart"):
        merged.forget([row.document for row in rows], Room())  # type: ignore[arg-type]


def test_clearing_is_being_fresh() -> None:
    reader, fresh = reading(made(), facts(4)), made()
    reader.clear()
    assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(fresh.state()[k])) for k, v in reader.state().items())


# Matching and gathering.


def bank_of(rows: Sequence[Row], k: int, dtype: Any = "float32", **options: Any) -> Cmt:
    gather = Gathering(k=k, head_size=8, blocks=1, **options)
    return reading(made(gather=gather, bank=Storage(dtype, dedupe=False)), rows)


def test_the_order_of_documents_changes_nothing() -> None:
    rows = facts(8)
    reader, turned = bank_of(rows, 3), bank_of(rows[::-1], 3)
    for row in rows:
        text = row.question.text
        assert reader.found(text, 3) == turned.found(text, 3)
        torch.testing.assert_close(gathered(reader, text), gathered(turned, text), atol=1e-5, rtol=1e-5)


def test_every_memory_twice_and_twice_as_many_chosen_changes_nothing() -> None:
    rows = facts(6)
    reader, double = bank_of(rows, 2), bank_of([row for row in rows for _ in range(2)], 4)
    for row in rows:
        text = row.question.text
        torch.testing.assert_close(gathered(reader, text), gathered(double, text), atol=1e-5, rtol=1e-5)


def test_a_document_that_matches_worse_than_the_best_changes_nothing() -> None:
    rows = facts(8)
    for row in rows[:3]:
        text = row.question.text
        order = bank_of(rows, 3).found(text, 8)
        best = [one for one in rows if key(one.document.id) in order[:4]]
        reader = bank_of(best, 3)
        before = gathered(reader, text)
        for one in [one for one in rows if key(one.document.id) in order[4:]]:
            reading(reader, [one])
        torch.testing.assert_close(gathered(reader, text), before, atol=1e-6, rtol=1e-6)
        reader.forget([one.document for one in rows if key(one.document.id) == order[3]], Room())  # type: ignore[arg-type]
        torch.testing.assert_close(gathered(reader, text), before, atol=1e-6, rtol=1e-6)
        reader.forget([one.document for one in rows if key(one.document.id) == order[0]], Room())  # type: ignore[arg-type]
        assert not torch.allclose(gathered(reader, text), before, atol=1e-5)


@torch.no_grad()
def test_without_matching_it_is_macs_aggregation() -> None:
    rows = facts(5)
    reader = bank_of(rows, 5, match=False)
    text = rows[0].question.text
    query = reader._questions([text])
    mac = reader.aggregator(query, reader.memory.vectors().flatten(0, 1)[None])[0]
    torch.testing.assert_close(gathered(reader, text), mac, atol=1e-6, rtol=1e-6)
    flat = bank_of(rows, 99)  # all chosen, at the highest temperature: nearly the same weights for all
    flat.matcher.key.zero_()  # and with no direction at all, the very same
    flat.memory.keys.zero_()
    torch.testing.assert_close(gathered(flat, text), mac, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_one_best_weighs_one() -> None:
    reader = bank_of(facts(5), 1)
    text = facts(5)[3].question.text
    (best,) = reader.found(text, 1)
    own = reader.memory.vectors(torch.tensor([reader.memory.ids.tolist().index(best)]))
    query = reader._questions([text])
    torch.testing.assert_close(gathered(reader, text), reader.aggregator(query, own)[0], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_gathering_by_hand() -> None:
    rows = facts(5)
    reader, text = bank_of(rows, 3), rows[2].question.text
    query = reader._questions([text])  # (1, m, D)
    memories = torch.cat([reader.compressor(reader.lm, [reader.lm.words.tokens(row.document.text)]) for row in rows])
    unit = lambda v: v / v.norm()  # noqa: E731
    q = unit(torch.stack([reader.matcher.query @ one for one in query[0]]).mean(0))
    s = torch.stack([q @ unit(torch.stack([reader.matcher.key @ one for one in each]).mean(0)) for each in memories])
    order = sorted(range(5), key=lambda i: -float(s[i]))[:3]
    p = (s[order] / 0.05).softmax(0)
    logs = torch.cat([p[j].log().expand(M) for j in range(3)])[None]
    expected = reader.aggregator(query, memories[order].flatten(0, 1)[None], logs)[0]
    torch.testing.assert_close(gathered(reader, text), expected, atol=5e-3, rtol=5e-3)  # keys are in float16
    assert reader.found(text, 3) == [key(rows[i].document.id) for i in order]


@torch.no_grad()
def test_with_nothing_in_the_bank_the_question_itself_is_injected() -> None:
    for match in (True, False):
        reader = made(gather=Gathering(match=match, head_size=8, blocks=1))
        text = "what is the code of river ?"
        assert torch.equal(gathered(reader, text), reader._questions([text])[0])
        assert reader.answer([Query(text, "")]) == reader.lm.generate(
            [reader.lm.words.question(text)], Embeds(reader._questions([text]))
        )
    assert made().answer([]) == []


def test_answers_do_not_depend_on_who_else_is_asked() -> None:
    rows = facts(12)
    for kind in KINDS:
        reader = reading(made(kind, lm=Lm(new_tokens=3, batch=5)), rows)
        together = reader.answer(queries(rows))
        assert together == [reader.answer([one])[0] for one in queries(rows)]
        assert len(set(together)) > 1


def test_a_batch_of_rows_is_its_rows_one_by_one_but_for_distractors() -> None:
    reader, rows = made(gather=Gathering(head_size=8, blocks=1, k=1)).train(), facts(4)
    reader.forced_until = 10**6  # so that each is given its own
    reader.objective = Objective(match=0.0)
    with torch.no_grad():
        alone = torch.stack([reader.episode([row]) for row in rows]).mean()
        together = reader.episode(rows)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_share_encoded_with_gradient_is_asked_about() -> None:
    reader, rows = made(objective=Objective(share=0.5)), facts(4)
    whole = made()
    seen: list[int] = []
    own = reader._answer_loss
    reader._answer_loss = lambda asked, memory: (seen.append(len(asked)), own(asked, memory))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        losses = reader.episode(rows)
        both = whole.episode(rows)
    assert seen == [2]
    assert losses.item() != pytest.approx(both.item(), abs=1e-6)
    reader.episode(rows).backward()
    assert reader.compressor.resampler.queries.grad is not None  # type: ignore[union-attr]


def test_k_at_test_is_another_choice_than_in_training() -> None:
    rows = facts(8)
    text = rows[0].question.text
    one = reading(made(asking=Asking(k=1)), rows)
    trained = reading(made(gather=Gathering(k=1, head_size=8, blocks=1)), rows)
    assert torch.equal(gathered(one, text), gathered(trained, text))
    assert not torch.equal(gathered(one, text), gathered(reading(made(), rows), text))
    assert {"bank", "asking"} == set(Cmt.after_preparing)


def test_contrast_with_alpha_zero_is_plain_decoding() -> None:
    rows = facts(6)
    plain = reading(made(), rows).answer(queries(rows))
    zero = reading(made(asking=Asking(contrast=True), objective=Objective(alpha=0.0)), rows)
    assert zero.answer(queries(rows)) == plain
    one = reading(made(), rows)
    for reader in (one, zero):
        reader.lm.words.eos = reader.lm.words.tokens(plain[0])[1]  # which answers have
    assert zero.answer(queries(rows)) == one.answer(queries(rows)) != plain
    strong = reading(made(asking=Asking(contrast=True), objective=Objective(alpha=5.0)), rows)
    assert strong.answer(queries(rows)) != plain


def test_chunks_are_memories_of_their_own_and_all_right() -> None:
    long = Document("long", " ".join(["the river is north ."] * 5))
    row = Row(long, Question("where is the river ?", "long", "", "north"))
    for kind in KINDS:
        reader = made(
            kind,
            compressor=Compression(kind, tokens=M, blocks=1, chunk=True),
            lm=Lm(document_tokens=8, new_tokens=3),
            encoder=Encoder(tokens=10),
        )
        reading(reader, [row])
        assert len(reader.memory) >= 3
        assert set(reader.memory.ids.tolist()) == {key("long")}
        reader.episode([row, *facts(2)]).backward()
        reader.forget([long], Room())  # type: ignore[arg-type]
        assert len(reader.memory) == 0


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"gather.k=0 must be 1 or more: with no memory there is nothing to gather"):
        Gathering(k=0)
    with pytest.raises(ConfigError, match=r"asking.k=0 must be"):
        Asking(k=0)
    with pytest.raises(ConfigError, match=r"gather.tau=0 must be in \[0.01, 1.0\]"):
        Gathering(tau=0)
    with pytest.raises(ConfigError, match=r"objective.alpha=-1 must be .*; objective.share=0"):
        Objective(alpha=-1, share=0)


# It learns.


@pytest.fixture(scope="module")
def learned() -> Cmt:
    """Two hundred steps on facts that are drawn anew each time, so that nothing but the memory can tell them."""
    torch.manual_seed(0)
    reader = Cmt(
        lm=Lm(new_tokens=4),
        compressor=Compression("cross", tokens=2, blocks=1),
        gather=Gathering(k=2, blocks=1, head_size=16),
    )
    steps, lr = 200, 5e-3
    reader.forced_until = steps // 2
    trained = [p for p in reader.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0)
    reader.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 10) * (1 - 0.9 * step / steps)
        optimizer.zero_grad()
        reader.episode(facts(16, step, "train")).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    return reader.eval()


@pytest.mark.slow
def test_it_learns_to_find_and_to_tell_facts(learned: Cmt) -> None:
    recalled, right, foreign, asked = 0, 0, 0, 0
    for seed in range(6):
        rows, others = facts(16, seed, "test"), facts(16, seed, "other")
        learned.clear()
        reading(learned, rows)
        recalled += sum(learned.found(row.question.text, 1) == [key(row.document.id)] for row in rows)
        right += sum(said == row.question.answer for said, row in zip(learned.answer(queries(rows)), rows, strict=True))
        learned.clear()
        reading(learned, others)
        foreign += sum(
            said == row.question.answer for said, row in zip(learned.answer(queries(rows)), rows, strict=True)
        )
        asked += len(rows)
    assert recalled > 0.9 * asked, recalled
    assert right >= 5 * max(foreign, 1), (right, foreign)
    assert right > 0.5 * asked, right
