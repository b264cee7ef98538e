"""MOS: adapters that never change once stored, merging, sliced logits, statistics, retrieval by groups, bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import BudgetExceeded, ConfigError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import Budget, account
from clearn.parts.alignment import Drawn, instance_loss
from clearn.parts.frozen_vit import Vit
from clearn.parts.statistics import RIDGE, Statistics
from clearn.recipe import Recipe
from clearn.state import content_hash, freeze, thaw
from clearn.stream import Inputs, TaskInfo
from clearn.streams import from_arrays
from strategies.mos import Mos
from strategies.simplecil import SimpleCil

torch.set_num_threads(1)

Learned = Callable[..., Any]
INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
BRIEF = Recipe(epochs=2, lr=0.05, schedule="cosine", batch_size=8, weight_decay=5e-3)
ALIGN = Recipe(epochs=2, lr=0.005, schedule="cosine", batch_size=16)
STILL = Recipe(epochs=2, lr=1e-30, schedule="constant", batch_size=8)
D, L, R = 64, 6, 4


def mos(**options: Any) -> Mos:
    torch.manual_seed(0)
    return Mos(INPUTS, TINY, **({"bottleneck": R, "first": BRIEF, "later": BRIEF, "align": ALIGN} | options)).eval()


def images(n: int = 36) -> Tensor:
    data = checks.toy_stream()
    parts = [data.task(t).probes[0].data for t in range(3)]
    return torch.cat([part.fetch(torch.arange(len(part))) for part in parts])[:: 72 // n]


def stored(net: Mos, t: int) -> list[str]:
    return [content_hash(value[t]) for value in net.bank.buffers()]


def shaken(net: Mos) -> Mos:
    """Give adapters and head values that lead images from one adapter to another."""
    rng = torch.Generator().manual_seed(1)
    for value in net.bank.buffers():
        value.copy_(torch.randn(value.shape, generator=rng) * 0.5)
    assert net.head is not None
    with torch.no_grad():
        net.head.weight.copy_(torch.randn(net.head.weight.shape, generator=rng))
    return net


# --- what is trained


def test_before_training_the_first_branch_is_simplecil(learned: Learned) -> None:
    net, plain = mos(), SimpleCil(INPUTS, TINY).eval()
    plain.vit.load_state_dict(net.vit.state_dict())
    learned(net, 3, train=False)
    learned(plain, 3)
    with torch.no_grad():
        assert torch.equal(net.read(images())["prototypes"], plain.predict(images()))


def test_the_loss_is_that_of_the_new_classes_alone_and_the_instance_term(learned: Learned) -> None:
    net = mos(reg=0.3)
    learned(net, 1)
    ctx = learned(net, 2, first=1, train=False)
    phase = ctx.phases[0]
    adapter, head = phase.module.eval()
    x, y = checks.toy_stream().task(1).train.fetch(torch.arange(10)), torch.arange(10) % 2 + 2
    features = net.vit(x, adapter)
    means = net.memory.means[:2]  # of the old classes alone
    wanted = cross_entropy(head(features)[:, 2:], y - 2) + 0.3 * instance_loss(features, means)
    torch.testing.assert_close(phase.loss(x, y), wanted)
    phase.loss(x, y).backward()
    assert not bool(head.weight.grad[:2].any())
    assert bool(head.weight.grad[2:].any())
    assert phase.options["rates"] == [(head, 0.1)]
    assert all(not p.requires_grad for p in net.vit.parameters())


def test_the_old_rows_of_the_head_change_by_weight_decay_alone(spy: Learned, learned: Learned) -> None:
    net, stream, seen = mos(), checks.toy_stream(), []
    learned(net, 1)
    ctx = spy(stream, 1)

    def note(module: nn.Module) -> None:
        assert net.head is not None
        seen.append(net.head.weight[:2].detach().clone())

    ctx.before = note  # before training, and before the alignment
    net.learn(stream.task(1), ctx)
    rows, momentum = seen[0].double(), torch.zeros(2, D, dtype=torch.float64)
    for epoch in range(2):
        for _ in range(3):  # 24 samples in batches of 8
            momentum = 0.9 * momentum + BRIEF.weight_decay * rows
            rows = rows - 0.1 * BRIEF.rate(epoch) * momentum
    torch.testing.assert_close(seen[1].double(), rows, rtol=1e-5, atol=1e-7)
    assert not torch.equal(seen[0], seen[1])


# --- merging


@pytest.mark.parametrize(("merges", "each"), [(1, 0.9), (None, 0.9 ** (L + 1)), (13, 0.9**13)])
def test_without_learning_the_gap_to_the_mean_shrinks_with_every_step(
    merges: int | None, each: float, spy: Learned, learned: Learned
) -> None:
    net, stream, start = mos(merges_per_step=merges, init="fresh", later=STILL), checks.toy_stream(), []
    learned(net, 1)
    ctx = spy(stream, 1)
    ctx.before = lambda module: start.append([p.detach().clone() for p in module.parameters()])
    net.learn(stream.task(1), ctx)
    for fresh, value in zip(start[0], net.bank.buffers(), strict=False):  # the last two are the head's
        torch.testing.assert_close(value[1] - value[0], each**6 * (fresh - value[0]), rtol=1e-4, atol=2e-7)


def test_the_first_task_and_alpha_0_do_not_merge(learned: Learned) -> None:
    assert learned(mos(), 1).phases[0].options["after_step"] is None
    free = mos(alpha=0.0)
    learned(free, 1)
    assert learned(free, 2, first=1, train=False).phases[0].options["after_step"] is None
    tied = mos()
    learned(tied, 1)
    assert learned(tied, 2, first=1, train=False).phases[0].options["after_step"] is not None


def test_with_alpha_1_every_adapter_is_the_first_and_retrieval_ends_at_once(learned: Learned) -> None:
    net = mos(alpha=1.0)
    assert learned(net, 3).cost.logged == {"mos/distance_to_first": 0.0}
    assert stored(net, 0) == stored(net, 1) == stored(net, 2)
    with torch.no_grad():
        _, found = net.retrieve(images())
    assert int(found.rounds.max()) <= 2


def test_the_weaker_the_merging_the_farther_a_later_adapter_goes(learned: Learned) -> None:
    away = [learned(mos(**tie), 2).cost.logged["mos/distance_to_first"] for tie in ({}, {"merges_per_step": 1})]
    free = mos(alpha=0.0)
    away.append(learned(free, 2).cost.logged["mos/distance_to_first"])
    assert 0 < away[0] < away[1] < away[2]
    gap = torch.cat([(stored[1] - stored[0]).flatten() for stored in free.bank.buffers()])
    assert away[2] == pytest.approx(float(gap.norm()), rel=1e-5)


def test_a_new_adapter_begins_as_asked(learned: Learned) -> None:
    starts = {}
    for init in ("previous", "fresh", "mean"):
        net = mos(init=init)
        learned(net, 2)
        ctx = learned(net, 3, first=2, train=False)
        starts[init] = ctx.phases[0].module[0].down.detach()
        previous, mean = net.bank.down[1], net.bank.down[:2].mean(0)
    assert torch.equal(starts["previous"], previous)
    torch.testing.assert_close(starts["mean"], mean)
    assert not torch.allclose(starts["fresh"], previous, atol=0.01)


# --- what is stored


def test_stored_adapters_change_no_bit_by_later_training_or_by_evaluation(learned: Learned) -> None:
    net = mos()
    learned(net, 1)
    first = stored(net, 0)
    learned(net, 2, first=1)
    second = stored(net, 1)
    learned(net, 3, first=2)
    before = [content_hash(value) for value in net.state_dict().values()]
    with torch.no_grad():
        for _ in range(2):
            net.predict(images())
    assert (stored(net, 0), stored(net, 1)) == (first, second)
    assert first != second
    assert [content_hash(value) for value in net.state_dict().values()] == before


def test_predictions_do_not_depend_on_batches_or_order(learned: Learned) -> None:
    net, x = mos(), images(72)
    learned(net, 3)
    shaken(net)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sevens = torch.cat([net.predict(part) for part in x.split(7)])
        large = torch.cat([net.predict(part) for part in x[order].split(64)])
        again = torch.cat([net.predict(part) for part in x.split(7)])
    assert torch.equal(sevens, again)
    torch.testing.assert_close(sevens[order], large)
    assert torch.equal(sevens[order].argmax(1), large.argmax(1))


def test_statistics_are_of_the_task_s_adapter_and_prototypes_of_the_first(learned: Learned) -> None:
    net, stream = mos(statistics=Statistics("full")), checks.toy_stream()
    learned(net, 2)
    train = stream.task(1).train
    x = train.fetch((train.labels == 3).nonzero().flatten())
    with torch.no_grad():
        own, first = net.vit(x, net.bank.one(1)).double(), net.vit(x, net.bank.one(0))
        score = net.read(x)["prototypes"][:, 3]
    assert net.memory.classes == [0, 1, 2, 3]
    torch.testing.assert_close(net.memory.means[3].double(), own.mean(0), rtol=1e-5, atol=1e-6)
    lower = net.memory.held[3].factor.double()
    torch.testing.assert_close(lower @ lower.T, torch.cov(own.T) + RIDGE * torch.eye(D), rtol=1e-4, atol=1e-5)
    wanted = nn.functional.cosine_similarity(first, first.mean(0)[None])
    torch.testing.assert_close(score, wanted)


def test_the_head_is_aligned_from_the_second_task_on(learned: Learned) -> None:
    net = mos()
    assert len(learned(net, 1).phases) == 1
    ctx = learned(net, 3, first=1)
    phase = ctx.phases[1]
    assert phase.module is net.head
    assert phase.recipe == ALIGN
    assert isinstance(phase.data, Drawn)
    assert phase.data.labels.bincount().tolist() == [16] * 6
    assert ctx.cost.optimizer_steps == 2 * 3 + 2 * 6  # C steps an epoch
    assert phase.options["augment"] is False


def test_bytes_are_the_published_formulas(learned: Learned) -> None:
    net = mos(statistics=Statistics("packed"))
    learned(net, 3)
    rows = account(freeze(net.state(), net.untouched()), net.category).rows()
    vit = sum(value.nbytes for value in net.vit.state_dict().values())  # fresh weights are carried
    assert rows == {
        ("model", "params"): 4 * 3 * L * (2 * D * R + R + D) + vit,
        ("model", "head"): 4 * 6 * (D + 1),
        ("model", "prototypes"): 4 * 6 * D,
        ("memory", "prototypes"): 4 * 6 * D,
        ("memory", "covariances"): 2 * 6 * D * (D + 1) + 6,  # and a byte a class for its form
        ("memory", "index"): 6,
    }


def test_a_model_rebuilt_from_its_state_answers_the_same(learned: Learned) -> None:
    net, x = mos(), images()
    learned(net, 3)
    torch.manual_seed(7)
    again = Mos(INPUTS, TINY, bottleneck=R)
    again.load(thaw(freeze(net.state(), net.untouched())), net.seen)
    with torch.no_grad():
        assert torch.equal(net.eval().predict(x), again.eval().predict(x))


# --- inference


@pytest.mark.parametrize("ensemble", [True, False])
def test_retrieval_by_groups_is_the_loop_over_images(learned: Learned, ensemble: bool) -> None:
    net = mos(ensemble=ensemble)
    learned(net, 3, train=False)
    shaken(net)
    x = images(36)
    with torch.no_grad():
        scores, (cosines, found) = net.predict(x), net.retrieve(x)
        for i in range(len(x)):
            one, adapter = x[i : i + 1], int(cosines[i].argmax()) // 2
            for k in range(1, 5):
                z = net._head(net.vit(one, net.bank.one(adapter)))[0]
                following = int(z.argmax()) // 2
                if following == adapter or k == 4:
                    break
                adapter = following
            s1 = nn.functional.cosine_similarity(net.vit(one, net.bank.one(0)), net.prototypes.sums)
            wanted = z.softmax(0) + (3 * s1).softmax(0) if ensemble else z.softmax(0)
            torch.testing.assert_close(scores[i], wanted, rtol=1e-4, atol=1e-5)
            assert (int(found.adapters[i]), int(found.rounds[i])) == (adapter, k)
    assert len(found.adapters.unique()) > 1
    assert int(found.rounds.max()) > 1
    torch.testing.assert_close(scores.sum(1), torch.full((36,), 2.0 if ensemble else 1.0))


def test_the_network_is_passed_once_and_for_what_is_not_settled(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, passed = mos(), []
    learned(net, 3, train=False)
    shaken(net)
    forward = net.vit.forward
    monkeypatch.setattr(net.vit, "forward", lambda x, a=None: (passed.append(len(x)), forward(x, a))[1])
    with torch.no_grad():
        _, found = net.retrieve(images(36))
    assert passed[0] == 36
    assert sum(passed) == int(found.passes.sum())
    assert len(passed) <= 5


def test_losses_follow_from_the_answer(learned: Learned) -> None:
    net, x = mos(), images(6)
    learned(net, 3)
    y = torch.arange(6)
    with torch.no_grad():
        shares = net.predict(x) / 2
        torch.testing.assert_close(net.losses(x, y), -shares[torch.arange(6), y].log())


def test_without_later_adapters_the_first_serves_all_tasks_in_one_pass(learned: Learned) -> None:
    net = mos(later_adapters=False)
    learned(net, 1)
    first = stored(net, 0)
    ctx = learned(net, 3, first=1)
    assert len(net.bank) == 1
    assert stored(net, 0) == first
    assert [phase.module for phase in ctx.phases] == [net.head]  # the alignment alone
    with torch.no_grad():
        cosines, found = net.retrieve(images())
        assert found.passes.unique().tolist() == found.rounds.unique().tolist() == [1]
        features = net.vit(images(), net.bank.one(0))
        assert torch.equal(found.logits, net._head(features))
    assert cosines.shape == (36, 6)
    again = mos(later_adapters=False)
    again.load(thaw(freeze(net.state(), net.untouched())), net.seen)
    with torch.no_grad():
        assert torch.equal(net.eval().predict(images()), again.eval().predict(images()))


# --- budgets and bad input


def test_under_a_budget_statistics_fall_back_or_the_run_is_refused_with_the_numbers() -> None:
    def carried(mode: str, fallback: str, budget: int | None) -> list[dict[str, Any]]:
        subject = checks.subject("mos", (f"statistics.mode={mode}", f"statistics.fallback={fallback}", "bottleneck=2"))
        found = checks.trace(checks.experiment(subject, budget=Budget(budget)))
        return [row for row in RunFolder(found.path).rows(LEDGER) if row["kind"] == "figures"]

    full, small = (carried(mode, "none", None)[-1]["delta"] for mode in ("full", "diagonal"))
    assert carried("full", "none", full)[-1]["slack"] == 0
    tight = carried("full", "diagonal", full - 1)
    assert tight[1]["delta"] > small  # two tasks fit as they are
    assert tight[2]["delta"] == small
    with pytest.raises(BudgetExceeded, match=r"statistics of 6 classes weigh [\d,]+ bytes \(mode full\)"):
        carried("full", "none", full - 1)


def test_a_class_that_comes_back_is_refused_before_anything_is_learned() -> None:
    net = mos()
    net.grow(TaskInfo(0, (0, 1)))
    with pytest.raises(ConfigError, match=r"classes \[1\] of task 2 came before"):
        net.grow(TaskInfo(1, (1, 2)))
    assert len(net.bank) == len(net.seen) == 1


@pytest.mark.parametrize("mode", ["exact", "diagonal", "multi-centroid"])
def test_classes_of_one_sample_are_learned(learned: Learned, mode: str) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 2, 3, 3])
    x = torch.randint(0, 256, (7, 3, 8, 8), generator=rng, dtype=torch.uint8)
    stream = from_arrays(x, labels, x, labels, increment=2, layout="NCHW")
    net = mos(statistics=Statistics(mode))  # type: ignore[arg-type]
    learned(net, 2, stream)
    with torch.no_grad():
        assert bool(torch.isfinite(net.predict(x)).all())
    assert net.memory.classes == [0, 1, 2, 3]


def test_wrong_options_are_refused_together() -> None:
    with pytest.raises(ConfigError) as refused:
        mos(bottleneck=0, alpha=1.5, merges_per_step=0, reg=-1.0, head_rate=0.0)
    for name in ("bottleneck=0", "alpha=1.5", "merges_per_step=0", "reg=-1.0", "head_rate=0.0"):
        assert name in str(refused.value)


def test_defaults_are_the_released_code_s() -> None:
    net = Mos(INPUTS, TINY)
    assert net.rate == pytest.approx(1 - 0.9 ** (L + 1))
    assert (net.reg, net.init, net.ensemble, net.head_rate) == (0.1, "previous", True, 0.1)
    assert (net.first.epochs, net.first.lr, net.first.batch_size, net.first.weight_decay) == (20, 0.03, 48, 5e-4)
    assert (net.align.epochs, net.align.lr, net.align.batch_size) == (30, 0.005, 5 * 48)
    assert net.bank.down.shape[3] == 16
