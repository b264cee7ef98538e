"""The conformance suite catches what hides: a zoo of cheaters, each caught by the check named, and an honest method.

Every cheater is a third party's module in a temporary folder; most keep the training samples of earlier tasks somewhere
that is neither weighed nor budgeted, and train on them again.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import checks, cli
from clearn.errors import BudgetExceeded, StateError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import Account, Budget
from clearn.runner import run
from clearn.state import content_hash
from clearn.tracing import in_fresh_processes

torch.set_num_threads(1)

HONEST = '''
"""A third party's method: two layers, nothing kept."""
import math, os, random, tempfile
import torch
from torch import nn
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.heads import grown_head
from clearn.parts.rehearsal import with_memory
from clearn.parts.samples import TensorSamples
from clearn.recipe import Recipe
from clearn.state import content_hash
from clearn.strategy import Strategy

BRIEF = Recipe(epochs=1, lr=0.05, batch_size=8)


class Toy(Strategy):
    def __init__(self, inputs, width: int = 8):
        super().__init__(inputs)
        self.body = nn.Sequential(Normalise(inputs), nn.Flatten(), nn.Linear(math.prod(inputs.shape), width), nn.ReLU())
        self.width, self.head = width, None

    def grow(self, info):
        super().grow(info)
        self.head = grown_head(self.head, self.width, len(self.classes))

    def learn(self, task, ctx):
        self.grow(task.info)
        ctx.fit(self, task.train, BRIEF)

    def predict(self, inputs):
        return self.head(self.body(inputs))
'''

HOARDER = '''

class Hoarder(Toy):
    """Trains on all it ever met; subclasses say where they keep it."""

    def learn(self, task, ctx):
        old = self.recall(task.info.index)
        self.grow(task.info)
        ctx.fit(self, with_memory(task.train, old) if old is not None else task.train, BRIEF)
        self.hide(task.train if old is None else with_memory(task.train, old))


def pack(samples):
    pixels = samples.fetch(torch.arange(len(samples))).reshape(len(samples), -1)
    return torch.cat([pixels, samples.labels[:, None].to(torch.uint8)], 1).numpy().tobytes()


def unpack(data):
    rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 193)
    return TensorSamples(rows[:, :-1].reshape(-1, 3, 8, 8), rows[:, -1].long())

'''

FRESH, REBUILD = checks.check_fresh_process_changes_nothing, checks.check_rebuild_changes_nothing
NOT_IN_STATE = "something outside `state()` survives a task"
IN_GLOBALS = "something survives in module globals or files"

# name: (what it does to be a cheater, the check that catches it, what the check says)
HOARDERS: dict[str, tuple[str, Callable[[checks.Subject], None], str]] = {
    "attribute": (
        """
        kept = None
        def recall(self, index): return self.kept
        def hide(self, samples): self.kept = samples
        """,
        REBUILD,
        NOT_IN_STATE,
    ),
    "list of tensors": (
        """
        def recall(self, index): return unpack(self.kept[0]) if hasattr(self, "kept") else None
        def hide(self, samples): self.kept = [pack(samples)]
        """,
        REBUILD,
        NOT_IN_STATE,
    ),
    "closure": (
        """
        recall = staticmethod(lambda index: None)
        def hide(self, samples): self.recall = lambda index: samples
        """,
        REBUILD,
        NOT_IN_STATE,
    ),
    "closure in the class": (
        """
        recall = staticmethod(lambda index: None)
        def hide(self, samples): Cheater.recall = staticmethod(lambda index: samples if index else None)
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "module global": (
        """
        CACHE = {}
        def recall(self, index):
            if not index: self.CACHE.clear()
            return self.CACHE.get("kept")
        def hide(self, samples): self.CACHE["kept"] = samples
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "module global that outlives the run": (
        """
        CACHE = {}
        def recall(self, index): return self.CACHE.get("kept")
        def hide(self, samples): self.CACHE.setdefault("kept", samples)
        """,
        checks.check_same_seed_gives_same_bytes,
        "something random does not come from the seed",
    ),
    "another module's global": (
        """
        def recall(self, index): return getattr(math, "kept", None) if index else None
        def hide(self, samples): math.kept = samples
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "the stream's own record": (
        """
        def recall(self, index): return getattr(self.inputs, "kept", None) if index else None
        def hide(self, samples): object.__setattr__(self.inputs, "kept", samples)
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "environment variable": (
        """
        def recall(self, index):
            return unpack(bytes.fromhex(os.environ["KEPT"])) if index and "KEPT" in os.environ else None
        def hide(self, samples): os.environ["KEPT"] = pack(samples).hex()
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "file in the temporary folder": (
        """
        def where(self): return os.path.join(tempfile.gettempdir(), "kept.bin")
        def recall(self, index):
            if not index or not os.path.exists(self.where()): return None
            with open(self.where(), "rb") as file: return unpack(file.read())
        def hide(self, samples):
            with open(self.where(), "wb") as file: file.write(pack(samples))
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "file in the working folder": (
        """
        def recall(self, index):
            return torch.load("kept.pt", weights_only=False) if index and os.path.exists("kept.pt") else None
        def hide(self, samples): torch.save(samples, "kept.pt")
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "file at home": (
        """
        def where(self): return os.path.expanduser("~/kept.bin")
        def recall(self, index):
            if not index or not os.path.exists(self.where()): return None
            with open(self.where(), "rb") as file: return unpack(file.read())
        def hide(self, samples):
            with open(self.where(), "wb") as file: file.write(pack(samples))
        """,
        FRESH,
        IN_GLOBALS,
    ),
    "a path as exemplars": (
        """
        path = torch.empty(0, dtype=torch.uint8)
        def recall(self, index):
            if not len(self.path): return None
            with open(bytes(self.path.tolist()), "rb") as file: return unpack(file.read())
        def hide(self, samples):
            handle, path = tempfile.mkstemp(".bin")
            with open(handle, "wb") as file: file.write(pack(samples))
            self.path = torch.tensor(list(path.encode()), dtype=torch.uint8)
        def state(self): return {**super().state(), "memory/path": self.path}
        def load(self, state, seen):
            self.path = state["memory/path"]
            super().load({k: v for k, v in state.items() if k != "memory/path"}, seen)
        """,
        FRESH,
        "a fresh process failed: FileNotFoundError",
    ),
}

GENERATOR = """
def recall(self, index):
    import numpy
    first = int(numpy.random.get_state()[1][0]) % 255
    return TensorSamples(torch.full((4, 3, 8, 8), first, dtype=torch.uint8), torch.zeros(4).long()) if index else None
def hide(self, samples):
    import numpy
    numpy.random.seed(int(samples.labels.sum()) + 1)
"""


Write = Callable[..., checks.Subject]
numbers = count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Make a module of a third party's and a subject of its class; whatever a cheater leaves is in `tmp_path`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("KEPT", "")
    monkeypatch.delenv("KEPT")

    def write(body: str, base: str = "Toy", options: tuple[str, ...] = ()) -> checks.Subject:
        name = f"third_party_{next(numbers)}"
        text = HONEST + (HOARDER if base == "Hoarder" else "")
        text += f"\n\nclass Cheater({base}):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
        (tmp_path / f"{name}.py").write_text(text)
        return checks.subject(f"{name}:Cheater", options)

    return write


def caught(check: Callable[[checks.Subject], None], subject: checks.Subject) -> str:
    with pytest.raises(AssertionError) as error:
        check(subject)
    return str(error.value)


def promise_of(check: Callable[[checks.Subject], None]) -> str:
    return (check.__doc__ or "").split("\n")[0].rstrip(".")


# --- honest methods


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_an_honest_method_of_a_third_party_passes(
    check: Callable[[checks.Subject], None], honest: checks.Subject
) -> None:
    check(honest)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("honest")
    (folder / "honest_party.py").write_text(HONEST)
    sys.path.insert(0, str(folder))
    yield checks.subject("honest_party:Toy")
    sys.path.remove(str(folder))


def test_the_command_says_which_promises_are_kept(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    module = write("pass").reference
    assert cli.main(["check", module]) == 0
    said = capsys.readouterr().out
    assert said.count("ok ") == len(checks.ALL)
    assert f"{module}: conforms" in said

    module = write(HOARDERS["attribute"][0], "Hoarder").reference
    assert cli.main(["check", module]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"failed {promise_of(REBUILD)}" in said
    assert NOT_IN_STATE in said
    assert f"ok {promise_of(FRESH)}" in said, "a fresh process rebuilds as the run itself does"


# --- the zoo


@pytest.mark.parametrize("name", HOARDERS)
def test_a_hoarder_is_caught(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    body, check, said = HOARDERS[name]
    monkeypatch.setattr("math.kept", None, raising=False)
    assert said in caught(check, write(body, "Hoarder"))


def test_the_global_generators_carry_nothing(write: Write) -> None:
    """The runner seeds the global generators before each task and puts them back after it: they hide nothing."""
    subject = write(GENERATOR, "Hoarder")
    REBUILD(subject)
    FRESH(subject)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ('int.from_bytes(self.head.weight.detach().numpy().tobytes(), "little")', "int"),
        ("self.head.weight.detach().numpy().tobytes().hex()", "str"),
        ("self.head.weight.tolist()", "list"),
    ],
)
def test_weights_in_anything_but_tensors_are_refused(value: str, kind: str, write: Write) -> None:
    subject = write(f'def state(self): return {{**super().state(), "memory/hidden": {value}}}')
    with pytest.raises(StateError, match=f"'memory/hidden' is a {kind}: only tensors are carried"):
        checks.check_state_holds_tensors_with_owners(subject)
    problems = dict(checks.run(subject))
    assert any(text and "only tensors are carried" in text for text in problems.values())


def test_an_optimiser_kept_on_the_object_is_caught(write: Write) -> None:
    body = """
    def learn(self, task, ctx):
        self.grow(task.info)
        self.momentum = getattr(self, "momentum", {})
        for inputs, targets in task.train.batches(8):
            self.zero_grad()
            self.losses(inputs, targets).mean().backward()
            for name, p in self.body.named_parameters():
                self.momentum[name] = 0.9 * self.momentum.get(name, 0) + p.grad
                p.data -= 0.01 * self.momentum[name]
    """
    assert NOT_IN_STATE in caught(REBUILD, write(body))


def test_an_optimiser_that_is_carried_is_weighed(write: Write, tmp_path: Path) -> None:
    body = """
    categories = {"model/momentum": "optimizer"}
    def __init__(self, inputs, width: int = 8):
        super().__init__(inputs, width)
        self.register_buffer("momentum", torch.zeros_like(self.body[2].weight))
    def learn(self, task, ctx):
        self.grow(task.info)
        for inputs, targets in task.train.batches(8):
            self.zero_grad()
            self.losses(inputs, targets).mean().backward()
            self.momentum = 0.9 * self.momentum + self.body[2].weight.grad
            self.body[2].weight.data -= 0.01 * self.momentum
    """
    subject = write(body)
    REBUILD(subject)
    rows = RunFolder(run(checks.experiment(subject), tmp_path / "run")).rows(LEDGER)
    assert [row["bytes"] for row in rows if row.get("category") == "optimizer"] == [4 * 8 * 192] * checks.N_TASKS


META = """
categories = {"memory/meta": "meta"}
meta = torch.empty(0, dtype=torch.uint8)
def recall(self, index): return unpack(self.meta.numpy().tobytes()) if len(self.meta) else None
def hide(self, samples): self.meta = torch.frombuffer(bytearray(pack(samples)), dtype=torch.uint8)
def state(self): return {**super().state(), "memory/meta": self.meta}
def load(self, state, seen):
    self.meta = state["memory/meta"]
    super().load({k: v for k, v in state.items() if k != "memory/meta"}, seen)
"""


def test_exemplars_under_another_name_are_weighed_and_refused_by_the_budget(write: Write, tmp_path: Path) -> None:
    subject = write(META, "Hoarder")
    experiment = checks.experiment(subject)
    rows = RunFolder(run(experiment, tmp_path / "free")).rows(LEDGER)
    hidden = [row["bytes"] for row in rows if row.get("category") == "meta"]
    assert hidden == [2 * checks.PER_CLASS * 193 * tasks for tasks in (1, 2, 3)]

    bare = experiment.plan()[-1].carried
    tight = checks.experiment(subject, budget=Budget(bare + hidden[0]))
    with pytest.raises(BudgetExceeded, match="after task 2 the carried state weighs"):
        run(tight, tmp_path / "tight")
    assert not RunFolder(tmp_path / "tight").state_path(2).exists()


# --- pretrained weights


PRETRAINED = """
def __init__(self, inputs, width: int = 8):
    super().__init__(inputs, width)
    published = torch.linspace(-0.02, 0.02, 8 * 192).reshape(8, 192)
    self.body[2].weight.data.copy_(published)
    self.body[2].requires_grad_(False)
    self.body[2].pretrained_hashes = {"weight": content_hash(published)}
def finish(self, task, ctx): pass
def learn(self, task, ctx):
    super().learn(task, ctx)
    self.finish(task, ctx)
"""


def shares(subject: checks.Subject, path: Path) -> list[tuple[int, int]]:
    """(bytes shared with the checkpoint, bytes of parameters) at each boundary."""
    rows = RunFolder(run(checks.experiment(subject), path)).rows(LEDGER)
    found = {(row["step"], row["category"]): row["bytes"] for row in rows if row["kind"] == "bytes"}
    return [(found.get((s, "shared_pretrained"), 0), found.get((s, "params"), 0)) for s in range(1, checks.N_TASKS + 1)]


def test_untouched_pretrained_weights_are_shared_and_not_carried(write: Write, tmp_path: Path) -> None:
    subject = write(PRETRAINED)
    assert shares(subject, tmp_path / "run") == [(4 * 8 * 192, 4 * 8)] * 3
    for check in (REBUILD, FRESH, checks.check_ledger_equals_file, checks.check_resume_changes_nothing):
        check(subject)


def test_a_pretrained_leaf_trained_by_a_hair_is_carried(write: Write, tmp_path: Path) -> None:
    subject = write(
        PRETRAINED
        + """
def finish(self, task, ctx):
    if task.info.index == 1: self.body[2].weight.data[0, 0] += 1e-8
"""
    )
    assert shares(subject, tmp_path / "run") == [(4 * 8 * 192, 32), (0, 4 * 8 * 193), (0, 4 * 8 * 193)]
    for check in (REBUILD, FRESH, checks.check_ledger_equals_file):
        check(subject)


def test_trained_weights_that_call_themselves_pretrained_are_refused(write: Write) -> None:
    subject = write(
        """
    def untouched(self):
        return {"model/body.2.weight": (content_hash(self.body[2].weight), self.body[2].weight.nbytes)}
    """
    )
    with pytest.raises(StateError, match="pretrained weights that this run leans on are not what they were"):
        REBUILD(subject)


# --- every other promise has a method that breaks it


@pytest.mark.parametrize(
    ("check", "body", "said"),
    [
        (
            checks.check_state_holds_tensors_with_owners,
            """
            def category(self, name): return "weights"
            """,
            "choose one of params, buffers",
        ),
        (
            checks.check_same_seed_gives_same_bytes,
            """
            def learn(self, task, ctx):
                super().learn(task, ctx)
                self.head.bias.data += int.from_bytes(os.urandom(2), "little")
            """,
            "something random does not come from the seed",
        ),
        (
            checks.check_resume_changes_nothing,
            """
            MADE = [0]
            def __init__(self, inputs, width: int = 8):
                super().__init__(inputs, width)
                self.MADE[0] += 1
            def learn(self, task, ctx):
                if not task.info.index: self.MADE[0] = 0
                super().learn(task, ctx)
                self.head.bias.data += self.MADE[0]
            """,
            "the state does not hold all that is needed",
        ),
        (
            checks.check_block_size_changes_nothing,
            """
            def losses(self, inputs, targets):
                block = self.trainer.fit_loop.epoch_loop.batch_idx if self._trainer else 0
                return super().losses(inputs, targets) * (1 + block)
            """,
            "training depends on the engine's blocks",
        ),
        (
            checks.check_prediction_changes_nothing,
            """
            def __init__(self, inputs, width: int = 8):
                super().__init__(inputs, width)
                self.register_buffer("asked", torch.tensor(0))
            def predict(self, inputs):
                self.asked += 1
                return super().predict(inputs)
            """,
            "predict changed the carried state",
        ),
        (
            checks.check_prediction_changes_nothing,
            """
            def predict(self, inputs): return super().predict(inputs) + torch.rand(1)
            """,
            "predict gives other answers when asked twice",
        ),
        (
            checks.check_prediction_ignores_order_and_batch,
            """
            def predict(self, inputs):
                logits = super().predict(inputs)
                return logits - logits.mean(0)
            """,
            "predict answers otherwise when asked one at a time",
        ),
        (
            checks.check_outputs_have_a_column_for_each_class,
            """
            def losses(self, inputs, targets): return super().losses(inputs, targets).mean()
            """,
            "losses gives (), not (24,): one for each sample",
        ),
        (
            checks.check_outputs_have_a_column_for_each_class,
            """
            readout = "nme"
            """,
            "the headline read-out 'nme' is not among ['classifier']",
        ),
        (
            checks.check_structure_follows_from_the_tasks_seen,
            """
            SIZES = [3]
            def grow(self, info):
                super().grow(info)
                self.SIZES[0] += 1
                self.register_buffer("extra", torch.zeros(self.SIZES[0]))
            """,
            "two learners grown for the same tasks have different structure",
        ),
        (
            checks.check_foreign_state_is_refused,
            """
            def load(self, state, seen):
                for info in seen: self.grow(info)
                self.load_state_dict({k.removeprefix("model/"): v for k, v in state.items()}, strict=False)
            """,
            "load took a state without 'model/body.2.bias'; it must raise StateError",
        ),
        (
            checks.check_short_streams_work,
            """
            def learn(self, task, ctx):
                if len(task.info.classes) > 1: super().learn(task, ctx)
                else: raise AssertionError("two classes, please")
            """,
            "two classes, please",
        ),
    ],
)
def test_a_broken_promise_is_named(
    check: Callable[[checks.Subject], None], body: str, said: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "ALL", (check,))
    ((promise, problem),) = checks.run(write(body))
    assert promise == promise_of(check)
    assert said in str(problem)


def test_the_budget_check_does_not_take_the_engines_word(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = write(META, "Hoarder")
    checks.check_budget_is_kept(subject)
    monkeypatch.setattr(Budget, "check", lambda *_, **__: None)
    assert "step 2 carries" in caught(checks.check_budget_is_kept, subject)
    assert "a budget of 100 bytes was accepted" in caught(checks.check_budget_is_kept, write("pass"))


def test_the_ledger_check_does_not_take_the_ledgers_word(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    honest_rows = Account.rows
    monkeypatch.setattr(Account, "rows", lambda self: {k: v for k, v in honest_rows(self).items() if k[1] != "head"})
    assert "step 1: rows" in caught(checks.check_ledger_equals_file, write("pass"))


def audited(subject: checks.Subject) -> None:
    in_fresh_processes("clearn.checks", checks.N_TASKS, asdict(subject))


def test_a_process_that_dies_is_a_failed_check_and_the_next_one_runs(write: Write) -> None:
    killed = write("def learn(self, task, ctx): os.kill(os.getpid(), 9)")
    assert "a fresh process failed: it ended with status 9" in caught(audited, killed)
    loud = write("def learn(self, task, ctx):\n    print('noise'); raise RuntimeError('so it goes')")
    assert "a fresh process failed: RuntimeError: so it goes" in caught(audited, loud)
    assert len(in_fresh_processes("clearn.checks", checks.N_TASKS, asdict(write("pass"))).hashes) == checks.N_TASKS


def test_content_hashes_tell_a_hair_apart() -> None:
    leaf = torch.full((4,), 0.02)
    assert content_hash(leaf) != content_hash(leaf + 1e-8)
