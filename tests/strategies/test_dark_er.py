"""DER and DER++: the three terms by hand, logits on the way and at the end, the reservoir's odds, bytes, forgetting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.config import plain
from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import Budget
from clearn.parts.exemplars import Memory
from clearn.parts.reservoir import Reservoir, SoftExemplars, Traced, reservoir
from clearn.parts.samples import TensorSamples
from clearn.recipe import FIRST_TASK, Recipe
from clearn.stream import Inputs
from strategies.dark_er import DarkEr, Diary, distance
from strategies.replay import Replay

torch.set_num_threads(1)

Learned = Callable[..., Any]
FIRST, LATER = Recipe(epochs=2, batch_size=8), Recipe(epochs=3, batch_size=10)
INPUTS = Inputs((3, 8, 8))
FREE = -math.inf


def dark(memory: Memory = Memory(total=12), **options: Any) -> DarkEr:
    torch.manual_seed(0)
    return DarkEr(INPUTS, "convnet2", memory=memory, first=FIRST, later=options.pop("later", LATER), **options)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- losses


def test_distance_by_hand_over_the_classes_known_then() -> None:
    now = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 4.0]], requires_grad=True)
    stored = torch.tensor([[0.0, 5.0, FREE], [1.0, 0.0, 1.0]])
    found = distance(now, stored)
    assert found.tolist() == [(1 + 9) / 2, pytest.approx((0 + 4 + 9) / 3)]
    (gradient,) = torch.autograd.grad(found.sum(), now)
    assert gradient.tolist() == [[1.0, -3.0, 0.0], pytest.approx([0, 4 / 3, 2])]
    assert distance(now.detach(), stored[:, :2]).tolist() == [5.0, 2.0], "columns that came after all items"


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_the_loss_term_by_term(beta: float, learned: Learned) -> None:
    net = dark(alpha=0.3, beta=beta, stored_per_step=3)
    learned(net, 1)
    logits = net.memory.logits.clone()
    phase = learned(net, 2, train=False, first=1).phases[0]
    stored, count = phase.options["replay"]
    assert count == (6 if beta else 3)
    steps = [torch.arange(4), torch.arange(4, 9)]
    fresh, drawn = phase.data.loader(iter(steps)), [torch.arange(count) + 1, torch.arange(count) + 4]
    net.eval()
    for rows in drawn:  # two steps: rows are told in order
        inputs, targets = next(fresh)
        b = len(inputs)
        inputs, targets = torch.cat([inputs, stored.fetch(rows)]), torch.cat([targets, stored.labels[rows]])
        with torch.no_grad():
            z = net.net(inputs)
            expected = cross_entropy(z[:b], targets[:b])
            expected += 0.3 * (z[b : b + 3, :2] - logits[rows[:3]]).square().mean()
            if beta:
                expected += beta * cross_entropy(z[b + 3 :], targets[b + 3 :])
            torch.testing.assert_close(phase.loss(inputs, targets), expected)


def test_as_many_are_drawn_as_a_batch_has_and_none_in_the_first_task(learned: Learned) -> None:
    net = dark()
    ctx = learned(net, 1)
    assert ctx.phases[0].options["replay"] is None
    assert ctx.phases[0].recipe is FIRST
    ctx = learned(net, 2, first=1)
    assert ctx.phases[0].options["replay"][1] == 2 * 10
    assert ctx.phases[0].recipe is LATER
    assert ctx.cost.samples == 3 * (24 + 3 * 20)
    assert ctx.phases[0].data.labels.unique().tolist() == [2, 3]


def test_stored_logits_pull_the_network_towards_them(learned: Learned) -> None:
    """The heavier alpha, the nearer are the answers to old samples to what they were."""
    gaps = {}
    for alpha in (1e-9, 1.0):
        net = dark(Memory(total=24), alpha=alpha, beta=0, later=Recipe(epochs=20, lr=0.01, batch_size=8))
        learned(net, 1)
        stored, logits = net.memory.samples(), net.memory.logits.clone()
        learned(net, 2, first=1)
        with torch.no_grad():
            gaps[alpha] = float(distance(net.eval().net(stored.inputs), logits).mean())
    assert gaps[1.0] < gaps[1e-9] / 2


# --- logits


def test_the_diary_notes_each_sample_once_in_a_drawn_epoch() -> None:
    rows, epochs = torch.tensor([5, 0, 3]), 4
    diary, seen = Diary(rows, 6, 2, epochs, rng()), []
    for epoch in range(1, epochs + 1):
        before = diary.logits.clone()
        for batch in torch.randperm(6, generator=rng(epoch)).split(4):
            diary.note(batch, torch.stack([batch.float() + 10 * epoch, torch.full((len(batch),), float(epoch))], 1))
        seen.append(int((diary.logits != before).any(1).sum()))
    assert sum(seen) == 3
    for row, noted in zip(rows.tolist(), diary.logits.tolist(), strict=True):
        assert 1 <= noted[1] <= epochs
        assert noted[0] == row + 10 * noted[1], "its own answer, in that epoch"


def test_every_epoch_of_the_trajectory_is_as_likely() -> None:
    n, epochs = 2000, 4
    diary = Diary(torch.arange(n), n, 1, epochs, rng())
    for epoch in range(1, epochs + 1):
        diary.note(torch.arange(n), torch.full((n, 1), float(epoch)))
    shares = diary.logits.long().flatten().bincount(minlength=5)[1:] / n
    assert float((shares - 0.25).abs().max()) < 4 * (0.25 * 0.75 / n) ** 0.5


def test_logits_on_the_way_are_those_of_training(learned: Learned, spy: Callable[..., Any]) -> None:
    """Caught from the network itself: each stored row is an answer that it gave while it was trained."""
    given: list[Tensor] = []
    net, stream = dark(), checks.toy_stream()
    caught = net.net.register_forward_hook(lambda _module, _inputs, output: given.append(output.detach().clone()))
    learned(net, 1, stream)
    caught.remove()
    rows = {tuple(row) for batch in given for row in batch.tolist()}
    assert all(tuple(row) in rows for row in net.memory.logits.tolist())
    final = dark(logits="final")
    learned(final, 1, stream)
    assert not any(tuple(row) in rows for row in final.memory.logits.tolist())


def test_final_logits_are_the_trained_networks(learned: Learned) -> None:
    net = dark(logits="final")
    learned(net, 2)
    stored, logits = net.memory.samples(), net.memory.logits
    with torch.no_grad():
        found = net.eval().net(stored.inputs)
    new = stored.labels >= 2
    assert bool(new.any())
    torch.testing.assert_close(found[new], logits[new])
    assert bool((logits[~new, 2:] == FREE).all()), "classes that came later are no targets"
    assert bool(logits[~new, :2].isfinite().all())


def test_traced_rows_come_in_the_order_of_reading_and_other_reading_leaves_no_trace() -> None:
    inputs = torch.arange(12, dtype=torch.uint8).reshape(6, 2)
    data = Traced(TensorSamples(inputs, torch.arange(6)))
    list(data.batches(4))
    data.take(torch.tensor([1])).fetch(torch.tensor([0]))
    orders = [torch.tensor([3, 1]), torch.tensor([5])]
    for (got, labels), order in zip(data.training_loader(iter(orders), rng()), orders, strict=True):
        assert torch.equal(got, inputs[order])
        assert data.rows().tolist() == labels.tolist() == order.tolist()
    data.fetch(torch.tensor([2, 2]))
    assert data.rows().tolist() == [2, 2]


# --- the reservoir


def naive_reservoir(capacity: int, n: int, seed: int) -> list[int]:
    """Buzzega et al. 2020, Alg. 3, sample by sample."""
    held: list[int] = []
    draws = torch.rand(n, generator=rng(seed), dtype=torch.float64)
    for i in range(n):
        if len(held) < capacity:
            held.append(i)
        elif (place := int(draws[i] * (i + 1))) < capacity:
            held[place] = i
    return held


def test_the_reservoir_is_algorithm_r() -> None:
    for seed in range(20):
        assert reservoir(0, 0, 5, 40, rng(seed)) == naive_reservoir(5, 40, seed)
    assert reservoir(3, 3, 0, 5, rng()) == []
    assert reservoir(3, 9, 3, 0, rng()) == [0, 1, 2]


def test_every_sample_met_is_as_likely_to_be_held_also_when_the_memory_shrinks() -> None:
    """Three tasks of 10 with 9, 9 and 6 places: each of the 30 samples is held with probability 6 / 30."""
    n_seeds, counts = 2000, torch.zeros(30)
    for seed in range(n_seeds):
        held: list[int] = []
        draws = rng(seed)
        for task, capacity in enumerate((9, 9, 6)):
            slots = reservoir(len(held), 10 * task, capacity, 10, draws)
            held = [held[i] if i < len(held) else 10 * task + i - len(held) for i in slots]
        assert len(set(held)) == 6
        counts[held] += 1
    assert float((counts / n_seeds - 0.2).abs().max()) < 4 * (0.2 * 0.8 / n_seeds) ** 0.5


def test_items_keep_their_own_pixels_label_and_logits_through_tasks(learned: Learned) -> None:
    net, stream = dark(Memory(total=20)), checks.toy_stream()
    known: dict[tuple[int, ...], tuple[int, list[float]]] = {}
    for task in range(3):
        learned(net, task + 1, stream, first=task)
        held = net.memory.samples()
        data = stream.task(task).train
        pixels = {
            tuple(x.flatten().tolist()): int(y) for x, y in zip(data.fetch(torch.arange(24)), data.labels, strict=True)
        }
        for x, y, z in zip(held.inputs, held.labels.tolist(), net.memory.logits.tolist(), strict=True):
            key = tuple(x.flatten().tolist())
            known.setdefault(key, (y, z))
            label, logits = known[key]
            assert y == label == pixels.get(key, y)
            assert z[: len(logits)] == logits
            assert z[len(logits) :] == [FREE] * (2 * (task + 1) - len(logits))
        assert (len(held), net.memory.met) == (20, 24 * (task + 1))


# --- what is carried


def test_bytes_follow_the_formula() -> None:
    rows = RunFolder(checks.trace(checks.experiment(checks.subject("dark_er"))).path).rows(LEDGER)
    memory = {
        kind: [r["bytes"] for r in rows if r.get("owner") == "memory" and r.get("category") == kind]
        for kind in ("exemplars", "index")
    }
    assert memory["exemplars"] == [12 * (192 + 1 + 4 * n_classes) for n_classes in (2, 4, 6)]
    assert memory["index"] == [8, 8, 8]


def test_a_budget_is_filled_to_less_than_an_item() -> None:
    free = checks.experiment(checks.subject("dark_er"))
    budget = Budget(max(free.weights(free.plan())) + 6000)
    subject = checks.Subject(
        "dark_er",
        "strategies.dark_er:DarkEr",
        checks.options_of({"backbone": "convnet2", "first": plain(FIRST), "later": plain(FIRST)}),
    )
    rows = RunFolder(checks.trace(checks.experiment(subject, budget=budget)).path).rows(LEDGER)
    figures = [row for row in rows if row["kind"] == "figures"]
    for n_classes, row in zip((2, 4, 6), figures, strict=True):
        slack = budget.total - row["delta"]
        full = row["exemplars"] == 12 * n_classes
        assert slack >= 0
        assert full or slack < 192 + 1 + 4 * n_classes


def test_more_than_fits_is_refused_and_so_is_a_budget_of_items_that_differ(
    context: Callable[..., Any],
) -> None:
    stream = checks.toy_stream()
    with pytest.raises(BudgetExceeded, match=r"memory\.total=50 keeps"):
        dark(Memory(total=50)).learn(stream.task(0), context(stream, budget=Budget(160_000), planned=(0,)))
    with pytest.raises(ConfigError, match=r"a reservoir fills bytes.*'png'.*give memory\.total"):
        dark(Memory(codec="png")).learn(stream.task(0), context(stream, budget=Budget(10**6), planned=(0,)))


def test_a_memory_comes_back_as_it_was_and_a_damaged_one_is_refused(learned: Learned) -> None:
    net, other = dark(), Reservoir(Memory(total=12), INPUTS)
    learned(net, 2)
    state = net.memory.state()
    other.load(state)
    assert all(torch.equal(value, other.state()[name]) for name, value in state.items())
    assert (other.met, len(other)) == (48, 12)
    for wrong, said in (
        ({k: v for k, v in state.items() if k != "met"}, "samples met is None"),
        (state | {"met": torch.tensor(3)}, "samples met is 3"),
        (state | {"logits": state["logits"][1:]}, r"must be float32 \(12, C\)"),
        ({k: v for k, v in state.items() if k != "logits"}, r"must be float32 \(12, C\)"),
    ):
        with pytest.raises(StateError, match=said):
            other.load(wrong)


# --- forgetting


def test_forgotten_samples_take_their_logits_with_them(learned: Learned) -> None:
    net, stream = dark(Memory(total=24)), checks.toy_stream()
    learned(net, 1, stream)
    held, logits = net.memory.samples(), net.memory.logits.clone()
    rows = torch.tensor([0, 5, 7])
    assert net.memory.forget(held.take(rows)) == 3
    stays = torch.tensor([i for i in range(24) if i not in rows])
    assert torch.equal(net.memory.logits, logits[stays])
    assert torch.equal(net.memory.samples().inputs, held.inputs[stays])
    assert net.memory.met == 21
    before = {name: value.clone() for name, value in net.memory.state().items()}
    assert net.memory.forget(held.take(rows)) == 0
    assert all(torch.equal(value, before[name]) for name, value in net.memory.state().items()), "nothing twice"


def test_a_forgotten_class_leaves_the_others_logits_too(learned: Learned) -> None:
    net, stream = dark(), checks.toy_stream()
    learned(net, 2, stream)
    gone = net.memory.forget(stream.task(0).train.take(torch.arange(12)), (0,))
    assert gone > 0
    assert 0 not in net.memory.samples().labels
    assert bool((net.memory.logits[:, 0] == FREE).all())
    assert bool(net.memory.logits[:, 1].isfinite().all())
    assert net.memory.met == round(48 * (12 - gone) / 12)
    learned(net, 3, stream, first=2)
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_an_emptied_memory_is_like_a_new_one(learned: Learned) -> None:
    net, stream = dark(), checks.toy_stream()
    learned(net, 1, stream)
    net.memory.forget(stream.task(0).train, (0, 1))
    assert (len(net.memory), net.memory.met, list(net.memory.state())) == (0, 0, ["met"])
    learned(net, 2, stream, first=1)
    assert len(net.memory) == 12


# --- the rest


def test_without_a_memory_it_is_replay_without_one_bit_for_bit(learned: Learned) -> None:
    net, other = dark(Memory(total=0)), Replay(INPUTS, "convnet2", memory=Memory(total=0), first=FIRST, later=LATER)
    other.net.load_state_dict(net.net.state_dict())
    for learner in (net, other):
        learned(learner, 2)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_soft_exemplars_weigh_their_logits() -> None:
    held = SoftExemplars(Memory(total=3), INPUTS)
    assert held.item_cost(10) == 192 + 1 + 40
    assert held.quota(1000, 10) == 3
    assert SoftExemplars(Memory(), INPUTS).quota(1000, 10) == 1000 // 233


def test_options_out_of_range_are_named_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)alpha=0 must.*beta=-1 must.*stored_per_step=0 must"):
        dark(alpha=0, beta=-1, stored_per_step=0)


def test_defaults() -> None:
    net = DarkEr(INPUTS)
    assert (net.alpha, net.beta, net.stored_per_step, net.logits, net.first) == (
        0.1,
        0.5,
        None,
        "trajectory",
        FIRST_TASK,
    )
    assert (net.later.epochs, net.later.milestones, net.later.weight_decay) == (70, (30, 50), 2e-4)
