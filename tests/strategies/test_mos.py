"""MOS: adapters that never change once stored, merging, sliced logits, statistics, retrieval by groups, bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearn import checks
from clearn.errors import BudgetExceeded, ConfigError, DataError, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import Budget, account
from clearn.parts.alignment import Drawn, instance_loss
from clearn.parts.frozen_vit import Vit
from clearn.parts.statistics import RIDGE, Statistics
from clearn.recipe import Recipe
from clearn.runner import run
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
    resume, begun = net.vit.resume, []
    begin = net.vit.begin
    monkeypatch.setattr(net.vit, "begin", lambda x, at: (begun.append(len(x)), begin(x, at))[1])
    monkeypatch.setattr(net.vit, "resume", lambda b, a: (passed.append(len(b.tokens)), resume(b, a))[1])
    with torch.no_grad():
        _, found = net.retrieve(images(36))
    assert begun == [36]  # what all adapters share
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


# --- other adapters, and other forms of storing them

NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="LoRA is trained through peft: clearn[language]")
FORMS = [
    ("bottleneck", "float16"),
    ("bottleneck", "int8"),
    pytest.param("lora", "float32", marks=NEEDS_PEFT),
    pytest.param("lora", "int8", marks=NEEDS_PEFT),
]


@pytest.mark.parametrize(("adapter", "store"), FORMS)
def test_of_any_kind_and_form_stored_sets_stay_and_a_rebuilt_learner_goes_on_alike(
    learned: Learned, adapter: str, store: str
) -> None:
    net, x = mos(adapter=adapter, store=store), images()
    learned(net, 2)
    carried = thaw(freeze(net.state(), net.untouched()))
    again = Mos(INPUTS, TINY, adapter, R, store, first=BRIEF, later=BRIEF, align=ALIGN)  # type: ignore[arg-type]
    again.load(carried, net.seen)
    before = [{name: content_hash(value) for name, value in net.bank.tensors(t).items()} for t in (0, 1)]
    for one in (net, again):
        learned(one, 3, first=2)
    with torch.no_grad():
        assert torch.equal(net.eval().predict(x), again.eval().predict(x))
    after = [{name: content_hash(value) for name, value in net.bank.tensors(t).items()} for t in (0, 1, 2)]
    assert after[:2] == before
    assert len({str(one) for one in after}) == 3


@pytest.mark.parametrize(("adapter", "store"), FORMS)
def test_of_any_kind_and_form_a_new_adapter_begins_as_the_stored_one_and_merges_with_stored_ones(
    learned: Learned, adapter: str, store: str
) -> None:
    net = mos(adapter=adapter, store=store)
    learned(net, 2)
    phase = learned(net, 3, first=2, train=False).phases[0]
    start, own = net.bank.stacked(phase.module[0]), net.bank.tensors(1)
    assert all(torch.equal(start[name].detach(), own[name]) for name in net.bank.names)
    for _ in range(200):
        phase.options["after_step"]()
    tied = net.bank.stacked(phase.module[0])
    for name in net.bank.names:
        torch.testing.assert_close(tied[name].detach(), (net.bank.tensors(0)[name] + own[name]) / 2)


@NEEDS_PEFT
def test_lora_is_retrieved_image_by_image(learned: Learned) -> None:
    net = mos(adapter="lora")
    learned(net, 3, train=False)
    shaken(net)
    x = images(36)
    with torch.no_grad():
        scores = net.predict(x)
        _, found = net.retrieve(x)
        alone = torch.cat([net.predict(part) for part in x.split(1)])
    assert len(found.adapters.unique()) > 1
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)


def test_rounded_adapters_answer_nearly_as_whole_ones(learned: Learned) -> None:
    whole, x = mos(), images(72)
    learned(whole, 3)
    with torch.no_grad():
        wanted = whole.predict(x)
        for store in ("float16", "int8"):
            net = mos(store=store)
            learned(net, 3)
            answers = net.predict(x)
            assert not torch.equal(answers, wanted)
            torch.testing.assert_close(answers, wanted, rtol=0, atol=0.05)  # of scores that sum to 2


# --- what the ledger says


def weights_of(mode: str, d: int, depth: int, r: int, n_tasks: int, counts: list[int]) -> dict[str, int]:
    """The formulas of the spec's section 5, in bytes, for `counts` samples of each class."""
    c = len(counts)
    covariances = {
        "full": 4 * c * d * d,
        "packed": 2 * c * d * (d + 1),
        "thin": 4 * d * sum(min(n, d) for n in counts),
        "diagonal": 4 * c * d,
        "exact": sum(4 * d * n if 4 * d * n < 2 * d * (d + 1) else 2 * d * (d + 1) for n in counts),
        "multi-centroid": 4 * c * d,  # of one centroid a class
    }
    return {
        "adapters": 4 * n_tasks * depth * (2 * d * r + r + d),
        "head": 4 * c * (d + 1),
        "prototypes": 4 * c * d,
        "means": 4 * c * d,
        "covariances": covariances[mode],
    }


def test_the_formulas_give_the_specs_table() -> None:
    cifar = {mode: weights_of(mode, 768, 12, 16, 20, [500] * 100) for mode in ("full", "packed", "thin", "diagonal")}
    assert list(cifar["full"].values()) == [24_345_600, 307_600, 307_200, 307_200, 235_929_600]
    assert cifar["packed"]["covariances"] == 118_118_400
    assert cifar["thin"]["covariances"] == 153_600_000
    assert cifar["diagonal"]["covariances"] == 307_200
    cub = weights_of("thin", 768, 12, 16, 20, [47] * 150 + [47] * 50 + [30])  # 9,430 images
    assert cub["covariances"] == 28_968_960
    birds = weights_of("full", 768, 12, 16, 20, [47] * 200)
    assert list(birds.values()) == [24_345_600, 615_200, 614_400, 614_400, 471_859_200]
    renditions = weights_of("packed", 768, 12, 16, 10, [120] * 200)
    assert (renditions["adapters"], renditions["covariances"]) == (12_172_800, 236_236_800)


@pytest.mark.parametrize("mode", ["full", "packed", "thin", "exact", "diagonal", "multi-centroid"])
def test_a_run_s_ledger_says_what_the_formulas_do(mode: str) -> None:
    options = (f"statistics.mode={mode}", "statistics.centroids=1", "bottleneck=2")
    found = RunFolder(checks.trace(checks.experiment(checks.subject("mos", options))).path)
    ledger = [row for row in found.rows(LEDGER) if row["kind"] == "bytes"]
    vit = sum(value.nbytes for value in mos().vit.state_dict().values())  # fresh weights are carried
    for step in (1, 2, 3):
        rows = {(row["owner"], row["category"]): row["bytes"] for row in ledger if row["step"] == step}
        wanted, c = weights_of(mode, D, L, 2, step, [12] * 2 * step), 2 * step
        ranks = 2 * c if mode in ("thin", "exact") else 0  # how many rows each factor has
        assert rows == {
            ("model", "params"): wanted["adapters"] + vit,
            ("model", "head"): wanted["head"],
            ("model", "prototypes"): wanted["prototypes"],
            ("memory", "prototypes"): wanted["means"],
            ("memory", "covariances"): wanted["covariances"] + c + ranks,  # a byte a class says its form
            ("memory", "index"): c,
        }


# --- the checkpoint


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint in timm's layout."""
    return write_weights(tmp_path / "weights.safetensors", 0)


def write_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def on(weights: Path) -> checks.Subject:
    return checks.subject("mos", (f"vit.weights={weights}", "vit.image_size=16", "bottleneck=2", "align.batch_size=8"))


def test_the_checkpoint_is_neither_written_nor_weighed_and_a_stopped_run_ends_the_same(weights: Path) -> None:
    what = checks.experiment(on(weights))
    undisturbed, stopped = checks.trace(what), checks.trace(what, until=2)
    run(what, stopped.path)
    checks.assert_same(undisturbed, checks.read_trace(stopped.path), "undisturbed", "resumed", "the state lacks a part")
    folder = RunFolder(undisturbed.path)
    held = {row["category"]: row["bytes"] for row in folder.rows(LEDGER) if row["step"] == 3 and row["kind"] == "bytes"}
    assert held["params"] == 4 * 3 * L * (2 * D * 2 + 2 + D)  # the adapters alone
    assert held["shared_pretrained"] > 1_000_000
    assert folder.state_path(3).stat().st_size < 150_000


def test_a_missing_or_changed_checkpoint_at_resume_is_named(weights: Path) -> None:
    stopped = checks.trace(checks.experiment(on(weights)), until=1)
    away = shutil.move(weights, weights.with_name("elsewhere.safetensors"))
    with pytest.raises(DataError, match=r"vit\.weights=.*weights\.safetensors"):
        run(checks.experiment(on(weights)), stopped.path)
    write_weights(weights, 1)
    with pytest.raises(StateError, match="the checkpoint was changed or replaced"):
        run(checks.experiment(on(weights)), stopped.path)
    shutil.move(away, weights)
    run(checks.experiment(on(weights)), stopped.path)


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


def test_tasks_of_one_class_and_fewer_than_five_classes_are_learned(learned: Learned) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(6)
    x = torch.randint(0, 256, (24, 3, 8, 8), generator=rng, dtype=torch.uint8)
    stream = from_arrays(x, labels, x, labels, increment=[1, 2, 1], layout="NCHW")
    net = mos()
    for done, n_classes in ((1, 1), (2, 3), (3, 4)):
        phases = learned(net, done, stream, first=done - 1).phases
        assert len(phases) == (1 if done == 1 else 2)
        with torch.no_grad():
            scores = net.eval().predict(x)
        assert scores.shape == (24, n_classes)
        torch.testing.assert_close(scores.sum(1), torch.full((24,), 2.0))
    found = checks.trace(checks.experiment(checks.subject("mos"), stream))  # all metrics of a whole run
    assert len(found.hashes) == 3


@pytest.mark.parametrize("size", [15, 40])
def test_an_image_size_that_the_patches_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"image_size={size} must be a multiple of the patches .*: write "):
        Mos(INPUTS, Vit("test_vit", weights=False, image_size=size))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit2", pretrained=False).state_dict(), path)
    with pytest.raises(DataError, match=r"other\.safetensors does not hold the weights of test_vit"):
        Mos(INPUTS, Vit("test_vit", str(path), 16))


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
