"""A training phase is a plain loop over shuffled batches, whatever the blocks; nothing of it is left behind."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from clearn.context import Context
from clearn.errors import Diverged
from clearn.parts.augment import Augment
from clearn.parts.samples import DatasetSamples, Samples, TensorSamples
from clearn.recipe import Recipe
from clearn.runner import Stopped

torch.set_num_threads(1)

MakeContext = Callable[..., Context]
CROSS_ENTROPY = nn.functional.cross_entropy


def images(n: int = 42, shape: tuple[int, ...] = (1, 6, 6)) -> TensorSamples:
    """n noisy images of 3 classes; 42 of them in batches of 4 leave a last batch of 2."""
    rng = torch.Generator().manual_seed(0)
    return TensorSamples(torch.randint(0, 256, (n, *shape), generator=rng, dtype=torch.uint8), torch.arange(n) % 3)


def numbered(n: int = 10) -> TensorSamples:
    """Sample i has input (i,) and label i."""
    return TensorSamples(torch.arange(n, dtype=torch.float32)[:, None], torch.arange(n))


class Net(nn.Module):
    """Two layers with BatchNorm and dropout: all that a stale cache, a wrong mode or a moved draw would show in."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.Dropout(dropout)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs.float() / 255))

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return CROSS_ENTROPY(self(inputs), targets, reduction="none")


class Point(nn.Module):
    """One number whose gradient is 1: each step of plain SGD takes the learning rate off it."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.at.expand(len(targets))


def flat(batches: list[list[int]]) -> list[int]:
    return [label for batch in batches for label in batch]


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def seen_by(ctx: Context, data: TensorSamples, recipe: Recipe, **options: Any) -> list[list[int]]:
    """Labels of each batch, in order."""
    batches: list[list[int]] = []
    module = Point()

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        assert torch.equal(inputs[:, 0].long(), targets), "inputs and labels were parted"
        batches.append(targets.tolist())
        return module.losses(inputs, targets)

    ctx.fit(module, data, recipe, loss=loss, **options)
    return batches


# --- blocks and precision


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_blocks_size_changes_no_bit(precision: str, context: MakeContext) -> None:
    crops = Augment(crop=1, flip=True)
    trained = []
    for block in (1, 3, 16):
        net = Net()
        ctx = context(None, block=block, precision=precision)
        ctx._augment = crops
        ctx.fit(net, images(), Recipe(epochs=3, lr=0.2, milestones=(2,), batch_size=4, weight_decay=1e-3))
        assert ctx.cost.optimizer_steps == 3 * 11
        trained.append(net)
    assert same(trained[0], trained[1])
    assert same(trained[0], trained[2])


def test_a_cast_of_weights_never_outlives_its_step(context: MakeContext) -> None:
    """Lightning keeps autocast's cache of casts off; one that a method turns on must not go stale within a block."""
    trained = []
    for block in (1, 16):
        net = Net()

        def loss(inputs: Tensor, targets: Tensor, net: Net = net) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=True):
                return net.losses(inputs, targets)

        ctx = context(None, block=block, precision="bf16-mixed")
        ctx.fit(net, images(), Recipe(epochs=2, lr=0.2, batch_size=4), loss=loss)
        trained.append(net)
    assert same(*trained)


def test_mixed_precision_steps_see_the_weights_of_the_step_before(context: MakeContext) -> None:
    """Each step's forward pass must use the weights as they are now: a plain loop under autocast is the reference."""
    data = images(24)
    mine, reference = Net(dropout=0.0), Net(dropout=0.0)
    ctx = context(None, precision="bf16-mixed", block=16)
    recipe = Recipe(epochs=1, lr=0.3, batch_size=4)
    ctx.fit(mine, data, recipe)
    optimizer = recipe.optimizer_for(reference.parameters())
    for rows in torch.randperm(24, generator=ctx.rng("fit1/order")).split(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = reference.losses(data.fetch(rows), data.labels[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(mine, reference)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=3, lr=0.1, milestones=(1, 2), decay=0.5, batch_size=5, weight_decay=1e-2),
        Recipe(epochs=2, lr=0.05, schedule="cosine", nesterov=True, batch_size=64),
        Recipe(epochs=2, lr=0.01, schedule="constant", optimizer="adamw", weight_decay=0.1, batch_size=7),
    ],
    ids=["steps", "cosine", "adamw"],
)
def test_a_fit_is_a_plain_loop_bit_for_bit(recipe: Recipe, context: MakeContext) -> None:
    data, mine, reference = images(), Net(dropout=0.0), Net(dropout=0.0)
    ctx = context()
    ctx.fit(mine, data, recipe)

    optimizer = recipe.optimizer_for(reference.parameters())
    order = ctx.rng("fit1/order")
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        for rows in torch.randperm(len(data), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            reference.losses(data.fetch(rows), data.labels[rows]).mean().backward()
            optimizer.step()
    assert same(mine, reference)


# --- modes, and what does not learn


@pytest.mark.parametrize("left", [True, False])
def test_training_starts_in_training_mode_however_the_module_was_left(left: bool, context: MakeContext) -> None:
    net, modes = Net(), set[bool]()

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        modes.update(module.training for module in net.modules())
        return net.losses(inputs, targets)

    for _ in range(2):
        net.train(left)
        before = net.body[1].running_mean.clone()  # type: ignore[operator]
        context().fit(net, images(), Recipe(epochs=2, batch_size=8), loss=loss)
        assert not torch.equal(before, net.body[1].running_mean)  # type: ignore[arg-type]
    assert modes == {True}


def test_a_frozen_part_is_bit_equal_afterwards_with_its_statistics(context: MakeContext) -> None:
    class Grown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.old, self.new = Net().requires_grad_(False), Net()

        def train(self, mode: bool = True) -> Grown:
            super().train(mode)
            self.old.eval()
            return self

        def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
            return CROSS_ENTROPY(self.old(inputs) + self.new(inputs), targets, reduction="none")

    net = Grown()
    before = copy.deepcopy(net)
    context().fit(net, images(), Recipe(epochs=2, lr=0.5, batch_size=8, weight_decay=0.1))
    assert same(net.old, before.old)
    changed = [name for name, p in net.new.named_parameters() if not torch.equal(p, before.new.state_dict()[name])]
    assert changed == [name for name, _ in net.new.named_parameters()]


def test_networks_beside_are_asked_in_evaluation_mode_and_stay_as_they_are(context: MakeContext) -> None:
    net, teacher = Net(), Net().train()
    before, ctx = copy.deepcopy(teacher), context()

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        assert not any(module.training for module in teacher.modules())
        with torch.no_grad():
            wanted = teacher(inputs).softmax(1)
        return CROSS_ENTROPY(net(inputs), wanted, reduction="none")

    ctx.fit(net, images(), Recipe(epochs=1, batch_size=8), loss=loss, beside=[teacher])
    assert same(teacher, before)
    weights = sum(p.nbytes for p in net.parameters())
    extra = sum(t.nbytes for t in teacher.state_dict().values())
    assert ctx.cost.transient == 2 * weights + extra, "gradients, momentum, and the network beside"


def test_only_what_is_trainable_when_the_phase_starts_is_trained(context: MakeContext) -> None:
    net = Net(dropout=0.0)
    net.body.requires_grad_(False)
    before, ctx = copy.deepcopy(net), context()
    ctx.fit(net, images(), Recipe(epochs=1, lr=0.5, batch_size=8))
    assert not torch.equal(net.head.weight, before.head.weight)
    assert torch.equal(net.body[4].weight, before.body[4].weight)  # type: ignore[arg-type]
    assert ctx.cost.transient == 2 * 4 * (16 * 3 + 3)
    net.requires_grad_(True)
    context().fit(net, images(), Recipe(epochs=1, lr=0.5, batch_size=8))
    assert not torch.equal(net.body[4].weight, before.body[4].weight)  # type: ignore[arg-type]


# --- batches


@pytest.mark.parametrize("block", [1, 4, 16])
def test_every_sample_is_met_once_an_epoch_in_a_new_order(block: int, context: MakeContext) -> None:
    batches = seen_by(context(None, block=block), numbered(10), Recipe(epochs=3, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    epochs = [flat(batches[3 * e : 3 * e + 3]) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_follows_from_seed_step_and_phase(context: MakeContext) -> None:
    recipe = Recipe(epochs=2, batch_size=3)
    first = seen_by(context(), numbered(), recipe)
    torch.manual_seed(77)
    assert seen_by(context(), numbered(), recipe) == first
    assert seen_by(context(None, block=1), numbered(), recipe) == first
    assert seen_by(context(seed=1), numbered(), recipe) != first
    assert seen_by(context(step=1), numbered(), recipe) != first
    ctx = context()
    assert seen_by(ctx, numbered(), recipe) == first
    assert seen_by(ctx, numbered(), recipe) != first, "a second phase of the step draws its own order"


@pytest.mark.parametrize("block", [1, 16])
def test_stored_samples_join_every_batch(block: int, context: MakeContext) -> None:
    stored = TensorSamples(torch.arange(100.0, 105.0)[:, None], torch.arange(100, 105))
    ctx = context(None, block=block)
    batches = seen_by(ctx, numbered(10), Recipe(epochs=20, batch_size=4), replay=(stored, 3))
    new = [[label for label in batch if label < 100] for batch in batches]
    old = [[label for label in batch if label >= 100] for batch in batches]
    assert [len(batch) for batch in new] == [4, 4, 2] * 20
    assert all(sorted(flat(new[i : i + 3])) == list(range(10)) for i in range(0, 60, 3))
    assert {len(batch) for batch in old} == {3}
    assert set(flat(old)) == set(range(100, 105))
    assert any(len(set(batch)) < 3 for batch in old), "drawn with replacement"
    assert ctx.cost.samples == 20 * (10 + 9)
    assert batches == seen_by(context(), numbered(10), Recipe(epochs=20, batch_size=4), replay=(stored, 3))


@pytest.mark.parametrize("stored", [0, 5])
def test_no_stored_samples_or_none_asked_for_is_plain_training(stored: int, context: MakeContext) -> None:
    recipe = Recipe(epochs=1, batch_size=4)
    kept = numbered(10).take(torch.arange(stored))
    replay = (kept, 0 if stored else 3)
    assert seen_by(context(), numbered(), recipe, replay=replay) == seen_by(context(), numbered(), recipe)


def test_samples_decoded_on_access_train_the_same_weights(context: MakeContext) -> None:
    held = images()
    files = DatasetSamples(list(zip(held.inputs, held.labels, strict=True)), torch.arange(len(held)), held.labels)
    mine, other = Net(), Net()
    context().fit(mine, held, Recipe(epochs=2, batch_size=5))
    context().fit(other, files, Recipe(epochs=2, batch_size=5))
    assert same(mine, other)


def test_augmentation_can_be_left_out_and_never_touches_the_stored_samples(context: MakeContext) -> None:
    data, seen = images(), []
    stored = data.inputs.clone()

    def inverted(inputs: Tensor, rng: torch.Generator) -> Tensor:
        assert len(inputs) <= 8
        return 255 - inputs

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(inputs.float().mean())
        return net.losses(inputs, targets)

    for augment in (True, False):
        net, ctx = Net(), context()
        ctx._augment = inverted
        ctx.fit(net, data, Recipe(epochs=1, batch_size=8), loss=loss, augment=augment)
    weights = torch.tensor([8.0] * 5 + [2.0]) / 42
    mean = stored.float().mean()
    assert float((torch.stack(seen[:6]) * weights).sum()) == pytest.approx(255 - float(mean), rel=1e-5)
    assert float((torch.stack(seen[6:]) * weights).sum()) == pytest.approx(float(mean), rel=1e-5)
    assert torch.equal(data.inputs, stored)


# --- rates and losses


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=6, lr=0.5, milestones=(2, 4), decay=0.1),
        Recipe(epochs=6, lr=0.5, schedule="cosine"),
        Recipe(epochs=6, lr=0.5, schedule="constant"),
    ],
    ids=lambda recipe: recipe.schedule,
)
def test_rates_follow_the_recipe(recipe: Recipe, context: MakeContext) -> None:
    from dataclasses import replace

    module, at = Point(), []

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        at.append(float(module.at.detach()))
        return module.losses(inputs, targets)

    context().fit(module, numbered(10), replace(recipe, momentum=0.0, batch_size=5), loss=loss)
    taken = [now - then for now, then in zip(at, [*at[1:], float(module.at.detach())], strict=True)]
    assert taken == pytest.approx([recipe.rate(step // 2) for step in range(12)])


def test_rates_by_hand() -> None:
    steps = Recipe(epochs=200, lr=0.1, milestones=(60, 120, 170))
    assert [steps.rate(e) for e in (0, 59, 60, 119, 120, 169, 170, 199)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4]
    )
    cosine = Recipe(epochs=4, lr=1.0, schedule="cosine")
    assert [cosine.rate(e) for e in range(4)] == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])
    quarter = Recipe(epochs=20, lr=0.001, schedule="quarter_cosine")
    assert [quarter.rate(e) for e in (0, 10, 19)] == pytest.approx([1e-3, 1e-3 * 0.683341, 1e-3 * 0.015707], rel=1e-4)
    assert Recipe(epochs=1, lr=0.5, schedule="quarter_cosine").rate(0) == 0.5


def test_parts_learn_at_their_own_rates(context: MakeContext) -> None:
    """The gradient of each of three numbers is 1: a step takes the rate off it, times its part's factor."""
    module = nn.ModuleList([Point(), Point(), Point()])

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        return sum(part.losses(inputs, targets) for part in module)  # type: ignore[misc,operator,return-value]

    recipe = Recipe(epochs=4, lr=0.5, schedule="cosine", momentum=0.0, batch_size=5)
    context().fit(module, numbered(10), recipe, loss=loss, rates=[(module[1], 0.1), (module[2], 0.0)])
    way = 2 * sum(recipe.rate(epoch) for epoch in range(4))
    assert [float(part.at.detach()) for part in module] == pytest.approx([-way, -0.1 * way, 0.0])  # type: ignore[union-attr,operator]


def test_a_factor_of_one_and_an_idle_hook_change_no_bit(context: MakeContext) -> None:
    plain, asked = Net(), Net()
    recipe = Recipe(epochs=2, lr=0.2, batch_size=8, weight_decay=1e-3)
    context().fit(plain, images(), recipe)
    context().fit(asked, images(), recipe, rates=[(asked.head, 1.0)], after_step=lambda: None)
    assert same(plain, asked)


@pytest.mark.parametrize("block", [1, 16])
def test_what_is_done_after_each_step_is_seen_by_the_next(block: int, context: MakeContext) -> None:
    module, seen = Point(), []

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(float(module.at.detach()))
        return module.losses(inputs, targets)

    def halve() -> None:
        with torch.no_grad():
            module.at.mul_(0.5)

    recipe = Recipe(epochs=2, lr=1.0, schedule="constant", momentum=0.0, batch_size=5)
    context(None, block=block).fit(module, numbered(10), recipe, loss=loss, after_step=halve)
    assert seen == [0.0, -0.5, -0.75, -0.875]
    assert float(module.at.detach()) == -0.9375


def test_a_loss_per_sample_and_its_mean_train_the_same(context: MakeContext) -> None:
    mine, other = Net(), Net()
    recipe = Recipe(epochs=2, batch_size=8)
    context().fit(mine, images(), recipe)
    context().fit(other, images(), recipe, loss=lambda x, y: other.losses(x, y).mean())
    assert same(mine, other)


def test_a_loss_that_is_not_finite_says_where_and_what_to_do(context: MakeContext) -> None:
    net, calls = Net(), []

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(0)
        return net.losses(inputs, targets) * (float("nan") if len(calls) == 8 else 1.0)

    with pytest.raises(Diverged) as caught:
        context().fit(net, images(), Recipe(epochs=5, lr=0.25, batch_size=8), loss=loss)
    assert str(caught.value).startswith(
        "the training loss became nan in epoch 2 of 5 (lr=0.25, sgd): choose a smaller lr"
    )
    assert len(calls) == 12, "it ends with the epoch, not with the phase"


def test_too_large_a_rate_diverges_and_is_told(context: MakeContext) -> None:
    with pytest.raises(Diverged, match=r"lr=1e\+30"):
        context().fit(Net(), images(), Recipe(epochs=3, lr=1e30, batch_size=8))


def test_nothing_to_train_is_refused(context: MakeContext) -> None:
    with pytest.raises(ValueError, match="this task has 0 training samples; check the stream's split"):
        context().fit(Net(), images(0), Recipe())
    with pytest.raises(ValueError, match="Net has no trainable parameter: set requires_grad before"):
        context().fit(Net().requires_grad_(False), images(), Recipe())


# --- what is left behind


class Learner(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.net.losses(inputs, targets)


def test_nothing_holds_the_trainer_afterwards(context: MakeContext) -> None:
    learner, trainers = Learner(), []

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        trainers.append(weakref.ref(learner.trainer))
        return learner.losses(inputs, targets)

    context().fit(learner, images(), Recipe(epochs=1, batch_size=8), loss=loss)
    assert learner._trainer is None
    gc.collect()
    assert [trainer() for trainer in trainers] == [None] * 6
    copy.deepcopy(learner)


def test_the_global_generator_is_where_it_was_and_dropout_follows_the_seed(context: MakeContext) -> None:
    before, trained = torch.get_rng_state(), []
    for junk in (1, 100):
        torch.rand(junk)
        net = Net(dropout=0.5)
        before = torch.get_rng_state()
        context().fit(net, images(), Recipe(epochs=1, batch_size=8))
        assert torch.equal(before, torch.get_rng_state())
        trained.append(net)
    assert same(*trained)


def test_a_stop_by_a_person_passes_through_the_trainer(context: MakeContext) -> None:
    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        raise Stopped("SIGINT")

    with pytest.raises(Stopped, match="SIGINT"):
        context().fit(Net(), images(), Recipe(), loss=loss)


def test_cost_adds_up_over_phases(context: MakeContext) -> None:
    ctx = context()
    for epochs in (1, 3):
        ctx.fit(Net(), images(20), Recipe(epochs=epochs, batch_size=8))
    assert (ctx.cost.optimizer_steps, ctx.cost.samples) == (4 * 3, 4 * 20)
    assert ctx.cost.train_seconds > 0
    assert ctx.cost.data_seconds > 0


# --- an observer


class Onlooker:
    """Marks each sample by its row + 1, those of a second source from 101 on, and notes what it is shown."""

    def __init__(self, at: Callable[[], float] = lambda: 0.0, every: int = 1) -> None:
        self.at, self.every, self.lengths = at, every, list[list[int]]()
        self.shown: list[tuple[list[int], float, float]] = []

    def begin(self, sources: Sequence[Samples]) -> list[Tensor]:
        self.lengths.append([len(source) for source in sources])
        marks = [torch.arange(len(source)) + 1 + 100 * k for k, source in enumerate(sources)]
        return [torch.where(one % self.every == 0, one, 0) for one in marks]

    @contextmanager
    def step(self, marks: Tensor) -> Iterator[None]:
        before = self.at()
        yield
        self.shown.append((marks.tolist(), before, self.at()))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_observer_changes_no_bit_and_sees_the_same_whatever_the_block(precision: str, context: MakeContext) -> None:
    recipe, trained, shown = Recipe(epochs=3, lr=0.2, milestones=(2,), batch_size=4, weight_decay=1e-3), [], []
    for block, watched in ((16, False), (16, True), (3, True), (1, True)):
        net = Net()
        ctx = context(None, block=block, precision=precision)
        ctx._augment = Augment(crop=1, flip=True)
        onlooker = Onlooker(lambda net=net: float(net.head.weight.detach().sum()))  # type: ignore[misc]
        with ctx.observed(onlooker) if watched else nullcontext():
            ctx.fit(net, images(), recipe, replay=(images(9), 2))
        trained.append(net)
        shown.append(onlooker.shown)
    assert all(same(trained[0], other) for other in trained[1:])
    assert shown[0] == []
    assert len(shown[1]) == 3 * 11
    assert shown[1] == shown[2] == shown[3]
    assert all(after == then[1] for (_, _, after), then in zip(shown[1], shown[1][1:], strict=False)), (
        "steps are in order"
    )


@pytest.mark.parametrize("block", [1, 4, 16])
def test_an_observer_is_told_the_rows_of_each_batch(block: int, context: MakeContext) -> None:
    ctx, onlooker = context(None, block=block), Onlooker()
    stored = TensorSamples(torch.arange(100, 105, dtype=torch.float32)[:, None], torch.arange(100, 105))
    with ctx.observed(onlooker):
        batches = seen_by(ctx, numbered(10), Recipe(epochs=2, batch_size=4), replay=(stored, 3))
    assert onlooker.lengths == [[10, 5]]
    assert [marks for marks, _, _ in onlooker.shown] == [[label + 1 for label in batch] for batch in batches]


def test_an_observer_stands_around_the_steps_of_marked_batches_alone(context: MakeContext) -> None:
    point, ctx = Point(), context()
    onlooker = Onlooker(lambda: float(point.at.detach()), every=10)
    with ctx.observed(onlooker):
        ctx.fit(point, numbered(10), Recipe(epochs=4, lr=0.5, schedule="constant", momentum=0.0, batch_size=4))
    assert len(onlooker.shown) == 4, "sample 9 is in one batch an epoch"
    assert all(10 in marks and set(marks) == {0, 10} for marks, _, _ in onlooker.shown)
    assert all(after == before - 0.5 for _, before, after in onlooker.shown)
    assert ctx.cost.optimizer_steps == 12


def test_an_observer_s_seconds_are_told_apart_and_it_leaves_with_its_context(context: MakeContext) -> None:
    class Slow(Onlooker):
        @contextmanager
        def step(self, marks: Tensor) -> Iterator[None]:
            time.sleep(0.01)
            yield
            time.sleep(0.01)

    ctx, inner = context(), Onlooker()
    with ctx.observed(Slow()):
        ctx.fit(Point(), numbered(10), Recipe(epochs=2, batch_size=4))
        with ctx.observed(inner):
            ctx.fit(Point(), numbered(10), Recipe(epochs=1, batch_size=4))
    assert ctx.cost.observe_seconds >= 6 * 0.02
    assert len(inner.shown) == 3
    before, train = ctx.cost.observe_seconds, ctx.cost.train_seconds
    ctx.fit(Point(), numbered(10), Recipe(epochs=1, batch_size=4))
    assert ctx.cost.observe_seconds == before
    assert ctx.cost.train_seconds > train > 0
    assert len(inner.shown) == 3
