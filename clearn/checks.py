"""The conformance suite: promises that any strategy, ours or a third party's, can be held to.

From the command line, `clearn check memo` or `clearn check mypkg.mymethod:MyClass`; from pytest:

    import pytest
    from clearn import checks

    @pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
    def test_conforms(check):
        check(checks.subject("mypkg.mymethod:MyClass"))

Every check runs the method on a few dozen made-up images in three tasks, and raises AssertionError with what was
promised and what happened instead.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from clearn import plugins
from clearn.config import bind as bind_options
from clearn.config import plain
from clearn.errors import BudgetExceeded, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning, rebuild
from clearn.ledger import CATEGORIES, Budget, account
from clearn.mistakes import Mistake, raise_all
from clearn.options import RunnerOptions, TrainerOptions
from clearn.parts.exemplars import Memory
from clearn.promises import held
from clearn.recipe import Recipe
from clearn.runner import run as run_experiment
from clearn.state import check_leaf, decode, encode, freeze
from clearn.strategy import Strategy
from clearn.stream import Stream
from clearn.tracing import Trace, assert_same, in_fresh_processes, read_trace, trace

N_TASKS, PER_CLASS, SHAPE = 3, 12, (3, 8, 8)
TRAINER = TrainerOptions(accelerator="cpu", threads=1)


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Attributes:
        name: as printed.
        reference: "module:Class", importable in a fresh process.
        options: of its constructor, as plain JSON text, so that a fresh process builds the same.
    """

    name: str
    reference: str
    options: str = "{}"

    def make(self, stream: Stream) -> Strategy:
        """A fresh learner for a stream."""
        cls = plugins.find_reference("strategies", self.reference)
        errors: list[Mistake] = []
        options = bind_options(cls, json.loads(self.options), "option", errors, skip=("inputs",))
        raise_all(errors)
        strategy = cls(stream.inputs, **options)
        assert isinstance(strategy, Strategy)
        return strategy


def subject(what: str, options: Sequence[str] = ()) -> Subject:
    """Make a subject of a method's name or of "module" or "module:Class", small enough to be checked in seconds.

    Training recipes are cut to two epochs, a memory is set to a dozen exemplars, a backbone to the smallest, and a
    pretrained vision transformer to a small one with fresh weights, so that nothing is downloaded, unless `options`
    ("KEY=VALUE", dot form) say otherwise.
    """
    cls = (
        plugins.find("strategies", what)
        if what in plugins.names("strategies")
        else plugins.find_reference("strategies", what)
    )
    chosen = small_options(cls)
    from omegaconf import OmegaConf

    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)))
    assert isinstance(given, dict)
    merged = OmegaConf.to_container(OmegaConf.merge(chosen, given))
    return Subject(what, f"{cls.__module__}:{cls.__qualname__}", json.dumps(merged, sort_keys=True))


def small_options(cls: type) -> dict[str, Any]:
    """Options that make a method quick, where it has recipes, a memory or networks as ours have."""
    from clearn.parts.frozen_vit import Vit
    from clearn.parts.projection import Projection

    small: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if isinstance(parameter.default, Recipe):
            small[name] = plain(replace(parameter.default, epochs=2, milestones=(), batch_size=8))
        elif isinstance(parameter.default, Memory):
            small[name] = {"total": 12}
        elif isinstance(parameter.default, Vit):
            small[name] = {"name": "test_vit", "weights": False, "image_size": 16}
        elif isinstance(parameter.default, Projection):
            small[name] = {"features": 48}
        elif name == "backbone" and isinstance(parameter.default, str):
            small[name] = "convnet2"
    return small


def toy_stream(n_tasks: int = N_TASKS, classes_per_task: int = 2) -> Stream:
    """Made-up 3 x 8 x 8 images: each class is a colour gradient of its own, with noise."""
    from clearn.streams import from_arrays

    rng = torch.Generator().manual_seed(0)
    n_classes = n_tasks * classes_per_task
    centres = torch.randint(40, 216, (n_classes, *SHAPE), generator=rng)
    labels = torch.arange(n_classes).repeat_interleave(PER_CLASS)
    noise = torch.randint(-30, 31, (len(labels), *SHAPE), generator=rng)
    images = (centres[labels] + noise).to(torch.uint8)
    test = (centres[labels] + noise.flip(0)).to(torch.uint8)
    return from_arrays(images, labels, test, labels, increment=classes_per_task, augment="crop_flip", layout="NCHW")


def experiment(of: Subject, stream: Stream | None = None, budget: Budget = Budget(), **trainer: Any) -> Learning:
    """An experiment with the subject on the toy stream."""
    stream = stream or toy_stream()
    config = {"strategy": {"name": of.reference, "options": of.options}, "stream": {"toy": len(stream)}, "seed": 3}
    return Learning(
        stream,
        lambda: of.make(stream),
        budget,
        seed=3,
        trainer=replace(TRAINER, **trainer),
        config=config,
        title=of.name,
    )


@cache
def _undisturbed(of: Subject) -> Trace:
    return trace(experiment(of))


def _learned(of: Subject) -> tuple[Strategy, Stream]:
    """A learner after all tasks, rebuilt from its last state."""
    what = experiment(of)
    blob = RunFolder(_undisturbed(of).path).state_path(N_TASKS).read_bytes()
    return rebuild(what.build(), decode(blob), what.stream.infos, what.seed, N_TASKS), what.stream


def _inputs(stream: Stream) -> tuple[Tensor, Tensor]:
    data = stream.task(0).probes[0].data
    return data.fetch(torch.arange(len(data))), data.labels


def check_state_holds_tensors_with_owners(of: Subject) -> None:
    """Whatever is carried is a dense tensor under 'owner/name', in a known category."""
    strategy, _ = _learned(of)
    state = strategy.state()
    for name, value in state.items():
        check_leaf(name, value)
        assert strategy.category(name) in CATEGORIES, (
            f"'{name}' has category '{strategy.category(name)}', not one of {CATEGORIES}"
        )


def check_rebuild_changes_nothing(of: Subject) -> None:
    """Rebuilding the learner from the weighed bytes after each task moves no bit of scores or states."""
    kept = trace(replace(experiment(of), runner=RunnerOptions(rebuild=False)))
    assert_same(_undisturbed(of), kept, "with the rebuild", "without it", "something outside `state()` survives a task")


def check_fresh_process_changes_nothing(of: Subject) -> None:
    """Each task learned in a process and a folder of its own gives the same bits: no globals, files or caches."""
    fresh = in_fresh_processes(__name__, N_TASKS, asdict(of))
    assert_same(
        _undisturbed(of),
        fresh,
        "in one process",
        "in a fresh process for each task",
        "something survives in module globals or files",
    )


def check_same_seed_gives_same_bytes(of: Subject) -> None:
    """Two runs of one seed are equal, also with other draws from the global generators in between."""
    torch.rand(7)
    assert_same(
        _undisturbed(of), trace(experiment(of)), "once", "again", "something random does not come from the seed"
    )


def check_resume_changes_nothing(of: Subject) -> None:
    """A run that stops after a task and is gone on with equals one that does not stop."""
    what = experiment(of)
    stopped = trace(what, until=1)
    run_experiment(what, stopped.path)
    assert_same(
        _undisturbed(of),
        read_trace(stopped.path),
        "undisturbed",
        "resumed",
        "the state does not hold all that is needed",
    )


def check_block_size_changes_nothing(of: Subject) -> None:
    """How many batches a training call loops over moves no bit."""
    assert_same(
        _undisturbed(of),
        trace(experiment(of, block=1)),
        "blocks of 16",
        "blocks of 1",
        "training depends on the engine's blocks",
    )


def check_prediction_changes_nothing(of: Subject) -> None:
    """Predicting leaves the carried state as it was, and predicts the same again."""
    strategy, stream = _learned(of)
    inputs, _ = _inputs(stream)
    strategy.eval()
    before = encode(freeze(strategy.state()))
    with torch.no_grad():
        first, second = strategy.predict(inputs), strategy.predict(inputs)
    assert torch.equal(first, second), "predict gives other answers when asked twice: it changes something"
    assert encode(freeze(strategy.state())) == before, "predict changed the carried state"


def check_prediction_ignores_order_and_batch(of: Subject) -> None:
    """A sample's answer does not depend on its neighbours."""
    strategy, stream = _learned(of)
    inputs, _ = _inputs(stream)
    strategy.eval()
    with torch.no_grad():
        together = strategy.predict(inputs)
        backwards = strategy.predict(inputs.flip(0)).flip(0)
        alone = torch.cat([strategy.predict(one[None]) for one in inputs])
    for name, other in (("in another order", backwards), ("one at a time", alone)):
        assert torch.allclose(together, other, rtol=1e-4, atol=1e-4), f"predict answers otherwise when asked {name}"


def check_outputs_have_a_column_for_each_class(of: Subject) -> None:
    """All read-outs give (b, C); the headline is one of them; losses gives (b,) finite values."""
    strategy, stream = _learned(of)
    inputs, targets = _inputs(stream)
    strategy.eval()
    expected = (len(inputs), len(strategy.classes))
    with torch.no_grad():
        found = {name: tuple(scores.shape) for name, scores in strategy.read(inputs).items()}
        losses = strategy.losses(inputs, targets)
        predicted = tuple(strategy.predict(inputs).shape)
    assert predicted == expected, f"predict gives {predicted}, not {expected}"
    assert all(shape == expected for shape in found.values()), f"read gives {found}, not {expected} each"
    assert strategy.readout in found, f"the headline read-out '{strategy.readout}' is not among {sorted(found)}"
    assert losses.shape == (len(inputs),), (
        f"losses gives {tuple(losses.shape)}, not ({len(inputs)},): one for each sample"
    )
    assert bool(torch.isfinite(losses).all()), "losses gives values that are not finite"


def check_structure_follows_from_the_tasks_seen(of: Subject) -> None:
    """Growing depends on the task infos alone: two fresh learners have entries of the same names and shapes."""
    stream = toy_stream()

    def shapes() -> dict[str, tuple[int, ...]]:
        strategy = of.make(stream)
        for info in stream.infos:
            strategy.grow(info)
        assert [info.index for info in strategy.seen] == list(range(N_TASKS)), "grow must call super().grow(info)"
        return {name: tuple(value.shape) for name, value in strategy.state().items()}

    assert shapes() == shapes(), "two learners grown for the same tasks have different structure"


def check_foreign_state_is_refused(of: Subject) -> None:
    """A state with an entry missing or too many is refused, not half loaded."""
    stream = toy_stream()
    state = _learned(of)[0].state()
    first = min(name for name in state if name.startswith("model/"))
    for wrong, text in (
        ({k: v for k, v in state.items() if k != first}, f"without '{first}'"),
        (state | {"model/stranger": torch.zeros(1)}, "with a stranger in it"),
    ):
        with contextlib.suppress(StateError):
            of.make(stream).load(wrong, stream.infos)
            raise AssertionError(f"load took a state {text}; it must raise StateError")


def check_budget_is_kept(of: Subject) -> None:
    """Under a byte budget every boundary is at or below it, and a budget below the bare model is refused."""
    free = experiment(of)
    bare = max(free.weights(free.plan()))
    unnumbered = {k: v for k, v in json.loads(of.options).items() if k != "memory"}
    filling = replace(of, options=json.dumps(unnumbered, sort_keys=True))
    budget = Budget(bare + 5000)
    try:
        found = trace(experiment(filling, budget=budget))
    except BudgetExceeded:
        return  # a method that refuses a budget it can't keep has kept its word
    for row in RunFolder(found.path).rows(LEDGER):
        assert row["kind"] != "figures" or row["delta"] <= bare + 5000, (
            f"step {row['step']} carries {row['delta']} of {bare + 5000} bytes"
        )
    with contextlib.suppress(BudgetExceeded):
        trace(experiment(filling, budget=Budget(100)))
        raise AssertionError("a budget of 100 bytes was accepted; the model alone is heavier")


def check_ledger_equals_file(of: Subject) -> None:
    """The bytes in the ledger are the tensor bytes in the state file, and its rows add up to them."""
    folder = RunFolder(_undisturbed(of).path)
    for step in range(1, N_TASKS + 1):
        blob = folder.state_path(step).read_bytes()
        header = int.from_bytes(blob[:8], "little")
        rows = [row for row in folder.rows(LEDGER) if row["step"] == step]
        total = sum(row["bytes"] for row in rows if row["kind"] == "bytes" and row["category"] != "shared_pretrained")
        figures = next(row for row in rows if row["kind"] == "figures")
        payload = len(blob) - 8 - header
        assert total == figures["delta"] == payload, (
            f"step {step}: rows {total}, ledger {figures['delta']}, file {payload} bytes"
        )
        strategy = of.make(toy_stream())
        frozen = decode(blob)
        strategy = rebuild(strategy, frozen, toy_stream().infos[:step], 3, step)
        assert account(frozen, strategy.category).carried == payload


def check_short_streams_work(of: Subject) -> None:
    """One task is a stream, and so are two classes in all, one class a task."""
    for n_tasks, classes in ((1, 2), (2, 1)):
        stream = toy_stream(n_tasks, classes)
        found = trace(experiment(of, stream))
        assert len(found.hashes) == n_tasks, f"a stream of {n_tasks} tasks of {classes} classes stopped early"


ALL: tuple[Callable[[Subject], None], ...] = tuple(
    value for name, value in list(globals().items()) if name.startswith("check_") and name != "check_leaf"
)


WITHOUT_REBUILD: tuple[Callable[[Subject], None], ...] = (
    check_same_seed_gives_same_bytes,
    check_budget_is_kept,
    check_short_streams_work,
)


def promised(of: Subject) -> tuple[Callable[[Subject], None], ...]:
    """The checks that a method is held to: all of them, or those that need no rebuild where it declares that it can't.

    See `clearn.learner.Learner.rebuilds`.
    """
    cls = plugins.find_reference("strategies", of.reference)
    assert issubclass(cls, Strategy)
    return ALL if cls.rebuilds else WITHOUT_REBUILD


def run(of: Subject) -> Iterator[tuple[str, str | None]]:
    """Run all checks that are promised; give (what is promised, None or what happened instead) one by one."""
    return held(of, promised(of))


def options_of(pairs: Mapping[str, Any]) -> str:
    """Constructor options as the JSON text a Subject holds."""
    return json.dumps(plain(dict(pairs)), sort_keys=True)
