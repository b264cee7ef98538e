"""Amnesiac: the updates of the batches that held what goes are logged while learning and taken back, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearn import checks
from clearn.context import Context
from clearn.errors import ConfigError, DataError, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning
from clearn.ledger import Budget
from clearn.options import RunnerOptions
from clearn.parts.exemplars import Memory
from clearn.parts.samples import Samples, TensorSamples
from clearn.recipe import Recipe
from clearn.state import freeze, thaw
from clearn.strategy import Strategy
from clearn.stream import Forget, Inputs, Request, Task, TaskInfo
from clearn.streams.requests import RequestOptions, WithRequests
from strategies.der_expand import DerExpand
from strategies.finetune import Finetune
from strategies.icarl import ICarl
from strategies.joint import Joint
from strategies.memo import Memo
from strategies.replay import Replay
from unlearn.amnesiac import Amnesiac, UpdateLog

torch.set_num_threads(1)

PLAIN = Recipe(epochs=1, lr=0.25, schedule="constant", batch_size=2, momentum=0.0)
BRIEF = Recipe(epochs=1, lr=0.01, schedule="constant", batch_size=8)


# --- by hand


class Linear(Strategy):
    """loss = w x: a plain step takes lr times the batch's mean input off w."""

    def __init__(self) -> None:
        super().__init__(Inputs((2,), "float32"))
        self.w = nn.Parameter(torch.tensor([1.0, -2.0]))

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs @ self.w

    def learn(self, task: Task, ctx: Context) -> None:
        self.grow(task.info)
        ctx.fit(self, task.train, PLAIN)


TWO_BATCHES = TensorSamples(
    torch.tensor([[1.0, 0.0], [2.0, 8.0], [4.0, 16.0], [8.0, 64.0]]), torch.tensor([0, 1, 2, 3])
)


def learned_by_hand(unlearner: Amnesiac, ctx: Context) -> tuple[Linear, list[Tensor]]:
    """A learner after two steps, and the rows of both batches."""
    strategy, task = Linear(), Task(TaskInfo(0, (0, 1, 2, 3)), TWO_BATCHES, ())
    with unlearner.during(strategy, task, ctx):
        strategy.learn(task, ctx)
    return strategy, list(torch.randperm(4, generator=ctx.rng("fit1/order")).split(2))


def asked(classes: tuple[int, ...] = (), rows: tuple[tuple[int, int], ...] = ()) -> Forget:
    goes = torch.tensor([*classes, *(row for _, row in rows)])
    return Forget(Request(1, classes, rows), TWO_BATCHES.take(goes), None, ())


@pytest.mark.parametrize(
    ("options", "what"),
    [({"classes": (3,)}, {"classes": (3,)}), ({"samples": (3,)}, {"rows": ((0, 3),)})],
    ids=["class", "sample"],
)
def test_two_batches_by_hand(options: dict[str, Any], what: dict[str, Any], context: Callable[..., Context]) -> None:
    unlearner = Amnesiac(**options, repair=None)
    strategy, batches = learned_by_hand(unlearner, context())
    steps = [-0.25 * TWO_BATCHES.inputs[rows].mean(0) for rows in batches]  # exact: all are sums of powers of two
    held = 0 if 3 in batches[0].tolist() else 1
    assert torch.equal(strategy.w, torch.tensor([1.0, -2.0]) + steps[0] + steps[1])
    state = unlearner.state()
    assert torch.equal(torch.as_tensor(state["unlearner/log/1/w"]), steps[held])
    assert torch.as_tensor(state["unlearner/steps"]).tolist() == [[1, 1]]

    unlearner.check(asked(**what))
    ctx = context()
    unlearner.forget(strategy, asked(**what), ctx)
    assert torch.equal(strategy.w, torch.tensor([1.0, -2.0]) + steps[1 - held])
    assert ctx.cost.logged["unlearn/steps"] == 1
    assert not any("/log/" in name for name in unlearner.state()), "what was taken back is dropped"


def test_a_batch_of_two_declared_classes_is_taken_back_once(context: Callable[..., Context]) -> None:
    start = torch.tensor([1.0, -2.0])
    for order in (((0, 1, 2, 3),), ((2,), (0, 1, 3)), ((0,), (1,), (2,), (3,)), ((3, 0), (2, 1))):
        unlearner = Amnesiac(classes=(0, 1, 2, 3), repair=None)
        strategy, _ = learned_by_hand(unlearner, context())
        assert len(unlearner.state()) == 1 + 2, "each batch held two classes: two sums, not four"
        for classes in order:
            unlearner.forget(strategy, asked(classes), context())
        assert torch.equal(strategy.w, start)


def test_a_log_adds_takes_and_carries_along_by_hand() -> None:
    log = UpdateLog()
    for groups, value in ((1, 1.0), (1, 2.0), (3, 4.0), (2, 8.0)):
        log.add(groups, {"head": torch.full((1, 2), value), "old": torch.full((2,), value)})
    start = {"head": torch.tensor([[5.0, 6.0]]), "old": torch.tensor([1.0, 2.0]), "gone": torch.zeros(1)}
    grown = {
        "head": torch.tensor([[5.0, 6.0, 9.0], [9.0, 9.0, 9.0]]),
        "copy": torch.tensor([1.0, 2.0]),
        "old": torch.tensor([1.0, 2.5]),
    }
    log.carry_along(grown, start)
    total, steps = log.take(1)
    assert steps == 3
    assert total.keys() == {"head", "copy"}, "old was drawn anew and owes nothing"
    assert total["head"].tolist() == [[7, 7, 0], [0, 0, 0]]
    assert total["copy"].tolist() == [7, 7]
    assert list(log.sums) == list(log.steps) == [2]
    log.carry_along({"other": torch.ones(3)}, start)
    assert log.state() == {}


# --- against the naive way


class Naive:
    """Keeps every update by itself, with the labels of its batch."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kept: list[tuple[set[int], dict[str, Tensor]]] = []

    def begin(self, sources: Sequence[Samples]) -> list[Tensor]:
        return [source.labels + 1 for source in sources]

    @contextmanager
    def step(self, marks: Tensor) -> Iterator[None]:
        before = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        yield
        update = {name: p.detach() - before[name] for name, p in self.module.named_parameters()}
        self.kept.append(({mark - 1 for mark in marks.tolist()}, update))


@pytest.mark.parametrize("cls", [Finetune, Replay, ICarl], ids=lambda cls: cls.__name__)
def test_it_is_the_paper_s_subtraction_of_every_logged_batch(cls: type[Strategy], setting: Callable[..., Any]) -> None:
    small = Recipe(epochs=2, lr=0.05, batch_size=2)
    held = setting(cls, first=small, later=small)
    torch.manual_seed(0)
    again, logs = held.make(), []
    for index in range(held.n_tasks):
        torch.manual_seed(index)
        ctx = held.spy()
        ctx.step, naive = index, Naive(again)
        with ctx.observed(naive):
            again.learn(held.stream.task(index), ctx)
        logs += naive.kept
    expected = {name: p.detach().double() for name, p in again.named_parameters()}
    batches = [update for labels, update in logs if labels & {0, 2}]
    assert 0 < len(batches) < len(logs)
    for update in batches:
        for name, delta in update.items():
            expected[name][tuple(slice(size) for size in delta.shape)] -= delta  # a head that has grown since

    unlearner = Amnesiac(classes=(0, 1, 2), repair=None)
    held.show(unlearner)
    buffers = {name: value.clone() for name, value in held.strategy.named_buffers()}
    request, ctx = held.request(classes=(0, 2)), held.spy()
    unlearner.check(request)
    unlearner.forget(held.strategy, request, ctx)
    assert ctx.cost.logged["unlearn/steps"] == len(batches)
    for name, parameter in held.strategy.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, buffers[name]) for name, value in held.strategy.named_buffers())
    assert all(int(name.split("/")[2]) & 5 == 0 for name in unlearner.state() if "/log/" in name)


# --- what becomes of the log when the network grows


@pytest.mark.parametrize("cls", [DerExpand, Memo], ids=lambda cls: cls.__name__)
def test_a_block_that_starts_as_a_copy_owes_what_its_origin_owed(
    cls: type[Strategy], setting: Callable[..., Any]
) -> None:
    held, unlearner = setting(cls, memory=Memory(total=0)), Amnesiac(classes=(0,), repair=None)
    held.show(unlearner)
    sums = {
        name.removeprefix("unlearner/log/1/"): value for name, value in unlearner.state().items() if "/log/" in name
    }
    assert sums.keys() == dict(held.strategy.named_parameters()).keys()
    blocks = "backbones" if cls is DerExpand else "blocks"
    first = [name for name in sums if name.startswith(f"{blocks}.0.")]
    assert first
    for name in first:
        assert bool(sums[name].any())
        assert torch.equal(sums[name], sums[name.replace(".0.", ".1.", 1)]), "the second task holds none of class 0"
    head = sums["head.weight"]
    assert head.shape == held.strategy.head.weight.shape
    assert not bool(head[2:].any())
    assert not bool(head[:, head.shape[1] // 2 :].any())


@pytest.mark.parametrize(("from_scratch", "steps"), [(True, 3 * 6), (False, 3 * 3 + 3 * 6)])
def test_weights_drawn_anew_for_a_task_owe_nothing_to_earlier_ones(
    from_scratch: bool, steps: int, setting: Callable[..., Any]
) -> None:
    stream = checks.toy_stream(2)
    recipe = Recipe(epochs=3, lr=0.1, batch_size=8)
    strategy = Joint(stream.inputs, "mlp", recipe=recipe, from_scratch=from_scratch)
    unlearner = Amnesiac(classes=(0, 1, 2, 3), repair=None)
    for index in range(2):
        ctx = setting(Finetune).spy()
        with unlearner.during(strategy, stream.task(index), ctx):
            strategy.learn(stream.task(index), ctx)
    assert ctx.cost.logged["unlearn/logged_steps"] == steps


# --- samples


@pytest.mark.parametrize("codec", ["raw", "jpeg:75", "png"])
def test_a_declared_sample_is_known_again_among_exemplars(codec: str, setting: Callable[..., Any]) -> None:
    held = setting(Replay, memory=Memory(total=24, codec=codec))
    unlearner = Amnesiac(samples=(0, 13, 30), repair=None)
    held.show(unlearner)
    stored, met = held.strategy.memory.samples(), unlearner._met
    assert met.numbers.tolist() == [0, 13, 30]
    assert met.labels.tolist() == [0, 1, 2]
    found = met.among(stored)
    assert held.strategy.memory.forget(held.request(rows=((0, 0), (0, 13), (1, 6))).forget) == 0, "taken out by then"
    left = held.strategy.memory.samples()
    assert int(found.sum()) == len(stored) - len(left) > 0
    assert not bool(met.among(left).any())
    task = held.stream.task(1).train
    assert met.among(task).nonzero().flatten().tolist() == [6]
    assert not bool(met.among(TensorSamples(task.inputs, (task.labels + 1) % 4)).any()), "the label counts as well"


def test_samples_are_one_group_asked_for_as_far_as_learned(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(Finetune), Amnesiac(classes=(0,), samples=(1, 13, 27), repair=None)
    held.show(unlearner)
    with pytest.raises(
        ConfigError, match=r"1 of the 2 samples to be forgotten were not declared .* is number 2: amnes"
    ):
        unlearner.check(held.request(rows=((0, 1), (0, 2))))
    with pytest.raises(ConfigError, match=r"2 samples .* one sum for all 3 declared ones .* number 27: ask for all"):
        unlearner.check(held.request(rows=((0, 1), (0, 13))))
    unlearner.check(held.request(rows=((0, 1), (0, 13), (1, 3))))
    unlearner.forget(held.strategy, held.request(classes=(0,)), held.spy())
    unlearner.check(held.request(rows=((0, 13), (1, 3))))  # sample 1 went with its class
    unlearner.forget(held.strategy, held.request(rows=((0, 13), (1, 3))), held.spy())
    assert torch.as_tensor(unlearner.state()["unlearner/numbers"]).tolist() == [], "no trace of what went"
    assert not any("/log/" in name for name in unlearner.state())


def test_a_file_declares_samples(tmp_path: Path, setting: Callable[..., Any]) -> None:
    file, held, left = tmp_path / "ids.txt", setting(Finetune), []
    file.write_text("3\n14\n")
    for unlearner in (Amnesiac(file=file), Amnesiac(samples=(14, 3, 3))):
        held.show(unlearner)
        left.append(unlearner.state())
    assert left[0].keys() == left[1].keys()
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(left[1][name])) for name, value in left[0].items())


# --- repair


def test_repair_reads_what_stays_and_its_steps_are_logged_for_the_next_request(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(), Amnesiac(classes=(0, 1), repair=BRIEF)
    held.show(unlearner)
    steps_before = dict(torch.as_tensor(unlearner.state()["unlearner/steps"]).tolist())
    request, ctx, before = held.request(classes=(0,)), held.spy(), held.values()
    unlearner.forget(held.strategy, request, ctx)
    assert [len(phase.data) for phase in ctx.phases] == [sum(len(task.train) for task in request.past)]
    assert ctx.phases[0].recipe == BRIEF
    assert not torch.equal(ctx.phases[0].before["net.head.weight"], before["net.head.weight"]), "taken back first"
    steps = dict(torch.as_tensor(unlearner.state()["unlearner/steps"]).tolist())
    assert steps.keys() == {2}
    assert 2 * ctx.cost.optimizer_steps > steps[2] > steps_before[2], "some hold class 1 and none class 0"
    assert Amnesiac(classes=(0,)).looks_back
    assert not Amnesiac(classes=(0,), repair=None).looks_back


# --- refusals


def test_what_cannot_be_is_refused_when_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is: write classes"):
        Amnesiac()
    with pytest.raises(ConfigError, match=r"samples \(2 numbers\) and file=.* give one of them"):
        Amnesiac(samples=(1, 2), file=tmp_path / "ids.txt")
    with pytest.raises(DataError, match="cannot read"):
        Amnesiac(file=tmp_path / "absent.txt")
    with pytest.raises(ConfigError, match="-1 is no class"):
        Amnesiac(classes=(3, -1))
    with pytest.raises(ConfigError, match=r"17 groups are declared.* at most 16"):
        Amnesiac(classes=tuple(range(16)), samples=(1,))


def test_what_was_not_declared_is_refused_with_the_numbers(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(), Amnesiac(classes=(1, 2), samples=(4,))
    with pytest.raises(ConfigError, match=r"class 3 .* classes \[1, 2\] alone \(1 such\).*classes: \[1, 2, 3\]"):
        unlearner.check(held.request(classes=(1, 3)))
    with pytest.raises(ConfigError, match=r"2 samples are to be forgotten after task 2, .* 1 declared ones"):
        unlearner.check(held.request(rows=((0, 4), (0, 5))))


def test_a_model_whose_steps_nobody_logged_is_refused(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(), Amnesiac(classes=(1,), samples=(4,))
    with pytest.raises(ConfigError, match="of the 0 steps that are logged none held them"):
        unlearner.check(held.request(classes=(1,)))
    with pytest.raises(
        ConfigError, match="1 of the 1 samples to be forgotten were not declared when they were learned"
    ):
        unlearner.check(held.request(rows=((0, 4),)))


def test_a_state_of_another_declaration_is_refused(setting: Callable[..., Any]) -> None:
    held, unlearner = setting(Finetune), Amnesiac(classes=(0, 2), samples=(4,))
    held.show(unlearner)
    state = unlearner.state()
    for other in (
        Amnesiac(classes=(0, 2)),
        Amnesiac(classes=(0,), samples=(4,)),
        Amnesiac(samples=(5,), classes=(0, 2)),
    ):
        with pytest.raises(StateError, match="not declared: resume it"):
            other.load(state, ())
    with pytest.raises(StateError, match="stranger"):
        Amnesiac(classes=(0,)).load({"unlearner/stranger": torch.zeros(1)}, ())


# --- in a run


def experiment(name: str, *requests: RequestOptions, **options: Any) -> Learning:
    what = checks.experiment(checks.subject(name), WithRequests(checks.toy_stream(), requests))
    told = {**what.config["stream"], "asked": [str(request) for request in requests]}
    declared = {"repair": BRIEF} | options
    return replace(what, unlearner=lambda: Amnesiac(**declared), config={**what.config, "stream": told})


TWICE = RequestOptions(after=2, classes=(0,), look_back=True), RequestOptions(after=3, ids=(13, 30), look_back=True)
DECLARED: dict[str, Any] = {"classes": (0, 4), "samples": (13, 30)}


@pytest.mark.parametrize("name", ["finetune", "replay", "icarl", "memo", "der_expand", "joint"])
def test_rebuilt_resumed_and_kept_runs_are_bit_identical(name: str) -> None:
    whole = checks.trace(experiment(name, *TWICE, **DECLARED))
    kept = checks.trace(replace(experiment(name, *TWICE, **DECLARED), runner=RunnerOptions(rebuild=False)))
    checks.assert_same(whole, kept, "rebuilt", "kept", "the log leaves something outside the state")
    for until in (1, 3):
        what = experiment(name, *TWICE, **DECLARED)
        stopped = checks.trace(what, until=until)
        checks.run_experiment(what, stopped.path)
        checks.assert_same(whole, checks.read_trace(stopped.path), "undisturbed", "resumed", "state is missing")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_log_depends_on_no_block_and_learning_on_no_log(precision: str) -> None:
    found = []
    for block in (1, 16):
        what = experiment("replay", *TWICE, **DECLARED)
        found.append(checks.trace(replace(what, trainer=replace(what.trainer, block=block, precision=precision))))
    checks.assert_same(*found, "blocks of 1", "blocks of 16", "the log depends on the engine's blocks")

    class Idle(Amnesiac):
        def during(self, strategy: Any, task: Any, ctx: Any) -> Any:
            return super(Amnesiac, self).during(strategy, task, ctx)

        def forget(self, strategy: Any, request: Any, ctx: Any) -> None: ...

        def check(self, request: Any) -> None: ...

    what = experiment("replay", *TWICE, **DECLARED)
    what = replace(what, trainer=replace(what.trainer, precision=precision), unlearner=lambda: Idle(**DECLARED))
    blind = RunFolder(checks.trace(what).path)
    seen = RunFolder(found[0].path)
    for step in (1, 2):
        one, other = blind.read_state(step).frozen.tensors, seen.read_state(step).frozen.tensors
        assert not any(name.startswith("unlearner/") for name in one)
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])) for name, value in one.items())


def test_the_log_is_weighed_as_updates_and_its_seconds_are_told() -> None:
    trace = checks.trace(experiment("finetune", TWICE[0], classes=(0,)))
    folder = RunFolder(trace.path)
    weighed = {
        (row["step"], row["category"]): row["bytes"]
        for row in folder.rows(LEDGER)
        if row["kind"] == "bytes" and row["owner"] == "unlearner"
    }
    figures = {row["step"]: row for row in folder.rows(LEDGER) if row["kind"] == "figures"}
    strategy = checks.subject("finetune").make(checks.toy_stream())
    strategy.grow(TaskInfo(0, (0, 1)))
    n_scalars = sum(p.numel() for p in strategy.parameters())
    assert weighed[1, "updates"] == 4 * n_scalars
    assert weighed[2, "updates"] == 4 * (n_scalars + 2 * (strategy.net.width + 1)), "the head grew"  # type: ignore[union-attr,operator]
    assert weighed[1, "index"] == weighed[2, "index"] == 16
    assert (3, "updates") not in weighed
    assert figures[1]["logged"]["unlearn/sums"] == 1
    assert figures[1]["logged"]["unlearn/logged_steps"] == figures[3]["logged"]["unlearn/steps"]
    assert figures[1]["seconds"]["observe"] > 0


def test_exemplars_leave_room_for_the_log_under_a_budget() -> None:
    what = experiment("replay", *TWICE, **DECLARED)
    limit = 8 * max(what.weights(what.plan())) + 5000
    filling = checks.experiment(checks.subject("replay", ["memory.total=null"]), what.stream, Budget(limit))
    trace = checks.trace(replace(filling, unlearner=what.unlearner))
    rows = RunFolder(trace.path).rows(LEDGER)
    assert [row["delta"] <= limit for row in rows if row["kind"] == "figures"] == [True] * 5
    assert any(row["kind"] == "bytes" and row["category"] == "updates" and row["step"] == 3 for row in rows)
    assert all(row["exemplars"] > 12 for row in rows if row["kind"] == "figures"), "and the rest is filled"


def test_an_undeclared_request_is_refused_before_anything_is_learned(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"class 0 is to be forgotten after task 2, .* classes \[4\] alone"):
        checks.run_experiment(experiment("finetune", TWICE[0], classes=(4,)), tmp_path / "run")
    assert not list((tmp_path / "run").glob("state/*"))
    with pytest.raises(ConfigError, match=r"2 samples are to be forgotten after task 3, .* 1 declared ones"):
        checks.run_experiment(experiment("finetune", TWICE[1], samples=(13,)), tmp_path / "run")


def test_a_log_comes_back_from_its_bytes_as_it_was(setting: Callable[..., Any]) -> None:
    held, unlearner, again = setting(Memo), Amnesiac(**DECLARED), Amnesiac(**DECLARED)
    held.show(unlearner)
    again.load(thaw(freeze(unlearner.state())), ())
    assert unlearner.state().keys() == again.state().keys()
    assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(again.state()[n])) for n, v in unlearner.state().items())
