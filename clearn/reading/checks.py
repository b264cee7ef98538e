"""The conformance suite for readers: promises that any method on documents, ours or a third party's, can be held to.

From the command line, `clearn check mbc` or `clearn check mypkg.myreader:MyClass`; from pytest:

    import pytest
    from clearn.reading import checks

    @pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
    def test_conforms(check):
        check(checks.subject("mypkg.myreader:MyClass"))

Every check has the method read a dozen made-up documents in three tasks, and raises AssertionError with what was
promised and what happened instead.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch

from clearn import plugins
from clearn.boundary import rebuild
from clearn.config import bind as bind_options
from clearn.config import plain
from clearn.context import Context
from clearn.errors import BudgetExceeded, ConfigError, StateError, UserError
from clearn.folder import LEDGER, RunFolder
from clearn.ledger import CATEGORIES, Budget, account
from clearn.mistakes import Mistake, raise_all
from clearn.options import ReadingOptions, TrainerOptions
from clearn.progress import Progress
from clearn.promises import held
from clearn.reader import Reader
from clearn.reading.experiment import ReadingExperiment, build_seed_of, told_of
from clearn.recipe import MetaRecipe
from clearn.runner import run as run_experiment
from clearn.state import State, check_leaf, decode, encode, freeze
from clearn.stream import Corpus, ForgetDocuments, Question
from clearn.tracing import Trace, assert_same, in_fresh_processes, read_trace, trace

N_TASKS, PER_TASK, UPSTREAM = 3, 4, 16
TRAINER = TrainerOptions(accelerator="cpu", threads=1)
NO_CACHE = ReadingOptions(cache=False)


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

    def bound(self) -> tuple[type[Reader], dict[str, Any]]:
        """The class, and its options with all defaults filled in."""
        cls = plugins.find_reference("strategies", self.reference)
        assert issubclass(cls, Reader), f"{self.reference} is no Reader: the suite for strategies on samples holds it"
        errors: list[Mistake] = []
        options = bind_options(cls, json.loads(self.options), "option", errors)
        raise_all(errors)
        return cls, options

    def make(self) -> Reader:
        """A fresh reader."""
        cls, options = self.bound()
        return cls(**options)


def subject(what: str, options: Sequence[str] = ()) -> Subject:
    """Make a subject of a method's name or of "module" or "module:Class", small enough to be checked in seconds.

    Meta-training is cut to one epoch of batches of four, unless `options` ("KEY=VALUE", dot form) say otherwise; the
    language model is the built-in tiny one where a method leaves it at that.
    """
    from omegaconf import OmegaConf

    known = what in plugins.names("strategies")
    cls = plugins.find("strategies", what) if known else plugins.find_reference("strategies", what)
    small = {
        name: plain(replace(parameter.default, epochs=1, batch_size=4, val_questions=4))
        for name, parameter in inspect.signature(cls).parameters.items()
        if isinstance(parameter.default, MetaRecipe)
    }
    merged = OmegaConf.to_container(OmegaConf.merge(small, OmegaConf.from_dotlist(list(options))))
    return Subject(what, f"{cls.__module__}:{cls.__qualname__}", json.dumps(merged, sort_keys=True))


@cache
def toy_corpus(n_tasks: int = N_TASKS, per_task: int = PER_TASK) -> Corpus:
    """Made-up one-fact documents, each with one question."""
    from clearn.streams.documents import build

    n = n_tasks * per_task
    return build(data="copying", documents=n, tasks=n_tasks, upstream_documents=UPSTREAM, val_documents=4)


def experiment(of: Subject, corpus: Corpus | None = None, budget: Budget = Budget()) -> ReadingExperiment:
    """An experiment with the subject on the toy corpus."""
    cls, options = of.bound()
    corpus = corpus or toy_corpus()
    config = {"strategy": {"name": of.reference, "options": of.options}, "stream": {"toy": len(corpus)}, "seed": 3}
    return ReadingExperiment(
        corpus,
        of.make,
        budget,
        seed=3,
        build_seed=build_seed_of(options, 3),
        trainer=TRAINER,
        runner=NO_CACHE,
        config=config,
        title=of.name,
        told={"method": of.reference, **told_of(cls, options)},
    )


@cache
def _undisturbed(of: Subject) -> Trace:
    return trace(experiment(of))


def _after(of: Subject, step: int, path: Trace | None = None, corpus: Corpus | None = None) -> Reader:
    """A reader rebuilt from the state after so many steps; 0 is what it was prepared with."""
    what = experiment(of, corpus)
    frozen = RunFolder((path or _undisturbed(of)).path).read_state(step).frozen
    seen = [reading.info for reading in what.corpus.read(step)]
    return rebuild(what.build(), frozen, seen, what.seed, step).eval()


def _context() -> Context:
    """A context outside of a run."""
    return Context(
        seed=3,
        step=1,
        trainer=TRAINER,
        device=torch.device("cpu"),
        augment=None,
        budget=Budget(),
        planned=[0] * N_TASKS,
        progress=Progress(),
    )


def _questions() -> list[Question]:
    return [question for reading in toy_corpus() for question in reading.questions]


def _memory(state: State) -> dict[str, bytes]:
    return {name: encode(freeze({name: value})) for name, value in state.items() if name.startswith("memory/")}


def check_state_holds_tensors_with_owners(of: Subject) -> None:
    """Whatever is carried is a dense tensor under 'owner/name', in a known category."""
    reader = _after(of, N_TASKS)
    for name, value in reader.state().items():
        check_leaf(name, value)
        assert reader.category(name) in CATEGORIES, f"'{name}' has category '{reader.category(name)}'"


def check_rebuild_changes_nothing(of: Subject) -> None:
    """Rebuilding the reader from the weighed bytes after each task moves no bit of answers or states."""
    kept = trace(replace(experiment(of), runner=replace(NO_CACHE, rebuild=False)))
    assert_same(_undisturbed(of), kept, "with the rebuild", "without it", "something outside `state()` survives a task")


def check_fresh_process_changes_nothing(of: Subject) -> None:
    """Each task read in a process and a folder of its own gives the same bits: no globals, files or caches."""
    fresh = in_fresh_processes(__name__, N_TASKS, asdict(of))
    why = "something survives in module globals or files"
    assert_same(_undisturbed(of), fresh, "in one process", "in a fresh process for each task", why)


def check_same_seed_gives_same_bytes(of: Subject) -> None:
    """Two runs of one seed are equal, also with other draws from the global generators in between."""
    torch.rand(7)
    why = "something random does not come from the seed"
    assert_same(_undisturbed(of), trace(experiment(of)), "once", "again", why)


def check_resume_changes_nothing(of: Subject) -> None:
    """A run that stops after a task and is gone on with equals one that does not stop."""
    what = experiment(of)
    stopped = trace(what, until=1)
    run_experiment(what, stopped.path)
    why = "the state does not hold all that is needed"
    assert_same(_undisturbed(of), read_trace(stopped.path), "undisturbed", "resumed", why)


def check_answering_changes_nothing(of: Subject) -> None:
    """Answering leaves the carried state as it was, and gives the same answers again."""
    reader, asked = _after(of, N_TASKS), [question.query for question in _questions()]
    before = encode(freeze(reader.state(), reader.untouched()))
    with torch.no_grad():
        first, second = reader.read(asked), reader.read(asked)
    assert first == second, "read gives other answers when asked twice: it changes something"
    assert encode(freeze(reader.state(), reader.untouched())) == before, "read changed the carried state"


def check_answers_ignore_order_and_batch(of: Subject) -> None:
    """An answer does not depend on the other questions."""
    reader, asked = _after(of, N_TASKS), [question.query for question in _questions()]
    with torch.no_grad():
        together = reader.answer(asked)
        backwards = reader.answer(asked[::-1])[::-1]
        alone = [reader.answer([query])[0] for query in asked]
    assert together == backwards, "answers differ when questions are asked in another order"
    assert together == alone, "answers differ when questions are asked one at a time"
    assert reader.readout in reader.read(asked[:1]), f"the headline read-out '{reader.readout}' is not among those read"


def check_no_questions_are_answered(of: Subject) -> None:
    """No questions have no answers."""
    assert _after(of, N_TASKS).answer([]) == [], "answer([]) must be []"


def check_questions_do_not_move_the_memory(of: Subject) -> None:
    """What is kept of documents does not depend on the questions that will be asked about them."""
    corpus = toy_corpus()
    others = [
        replace(reading, questions=tuple(replace(q, text=f"{q.text} {q.text}") for q in reading.questions[:1]))
        for reading in corpus
    ]
    found = trace(experiment(of, Corpus(others, corpus.upstream)))
    assert found.hashes == _undisturbed(of).hashes, "other questions gave other states: test questions are looked at"


def check_empty_memory_answers(of: Subject) -> None:
    """A reader that has read nothing answers every question."""
    reader, asked = _after(of, 0), [question.query for question in _questions()]
    with torch.no_grad():
        answers = reader.answer(asked)
    assert len(answers) == len(asked), f"{len(asked)} questions got {len(answers)} answers from an empty memory"
    assert all(isinstance(said, str) for said in answers), "answers must be text"


def check_pretrained_weights_stay(of: Subject) -> None:
    """Pretrained weights that count as shared are bit-identical before preparing and after the last task.

    A method that trains all weights has none left, and then they are weighed.
    """
    before, after = of.make().untouched(), _after(of, N_TASKS).untouched()
    changed = [name for name, facts in after.items() if before.get(name) != facts]
    assert not changed, f"{len(changed)} weights count as shared but are not those of the checkpoint: {changed[:2]}"
    weighed = set(_after(of, N_TASKS).state())
    lost = [name for name in before if name not in after and name not in weighed]
    assert not lost, f"{len(lost)} pretrained weights moved and are not carried: {lost[:2]}"


def check_forgetting_is_exact(of: Subject) -> None:
    """A document that is forgotten leaves a memory, and answers, as if it had never been read; or it is refused."""
    corpus = toy_corpus(2, 3)
    gone = corpus[0].documents[1]
    asking = replace(experiment(of, Corpus(corpus.readings, corpus.upstream, (ForgetDocuments(1, (gone.id,)),))))
    try:
        asked = trace(asking)
    except ConfigError:
        assert of.bound()[0].forget is Reader.forget, "forget is defined, but a plain request was refused"
        return
    stays = replace(
        corpus[0],
        documents=tuple(one for one in corpus[0].documents if one.id != gone.id),
        questions=tuple(one for one in corpus[0].questions if one.document != gone.id),
    )
    never = Corpus((stays, corpus[1]), corpus.upstream)
    other = trace(experiment(of, never))
    forgot = _after(of, 3, asked, asking.corpus)
    unread = _after(of, 2, other, never)
    assert _memory(forgot.state()) == _memory(unread.state()), "the memory differs from one that never held it"
    queries = [question.query for question in corpus[1].questions]
    with torch.no_grad():
        assert forgot.answer(queries) == unread.answer(queries), "answers differ from those of a reader without it"


def check_unread_documents_cannot_be_forgotten(of: Subject) -> None:
    """Forgetting what was never read is refused, and changes nothing."""
    cls, _ = of.bound()
    if cls.forget is Reader.forget or not cls.controls:  # it cannot forget, or keeps nothing of what it reads
        return
    reader = _after(of, 1)
    before = encode(freeze(reader.state(), reader.untouched()))
    with contextlib.suppress(UserError):
        reader.forget(list(toy_corpus()[2].documents[:1]), _context())
        raise AssertionError("a document that was never read was forgotten without a word")
    assert encode(freeze(reader.state(), reader.untouched())) == before, "the refusal changed the carried state"


def check_foreign_state_is_refused(of: Subject) -> None:
    """A state with an entry missing or too many is refused, not half loaded."""
    state, infos = _after(of, N_TASKS).state(), [reading.info for reading in toy_corpus()]
    wrongs = [(state | {"model/stranger": torch.zeros(1)}, "with a stranger in the model")]
    own = state.keys() - of.make().untouched().keys()  # a trained weight that is missing is looked for when rebuilding
    if own:
        first = min(own)
        wrongs.append(({k: v for k, v in state.items() if k != first}, f"without '{first}'"))
    if any(name.startswith("memory/") for name in state):
        wrongs.append((state | {"memory/stranger": torch.zeros(1)}, "with a stranger in the memory"))
    for wrong, text in wrongs:
        with contextlib.suppress(StateError):
            of.make().load(wrong, infos)
            raise AssertionError(f"load took a state {text}; it must raise StateError")


def check_budget_is_kept(of: Subject) -> None:
    """Under a byte budget every boundary is at or below it, and a budget below the empty reader is refused."""
    free = experiment(of)
    bare = max(free.weights(free.plan()))
    for beside in (2_000, 100):
        try:
            found = trace(experiment(of, budget=Budget(bare + beside)))
        except BudgetExceeded:
            continue  # a method that refuses a budget it can't keep has kept its word
        for row in RunFolder(found.path).rows(LEDGER):
            over = row["kind"] == "figures" and row["step"] and row["delta"] > bare + beside
            assert not over, f"step {row['step']} carries {row['delta']} of {bare + beside} bytes"
    if bare > 1:
        with contextlib.suppress(BudgetExceeded):
            trace(experiment(of, budget=Budget(bare // 2)))
            raise AssertionError(f"a budget of {bare // 2} bytes was accepted; the empty reader weighs {bare}")


def check_ledger_equals_file(of: Subject) -> None:
    """The bytes in the ledger are the tensor bytes in the state file, and its rows add up to them."""
    folder = RunFolder(_undisturbed(of).path)
    for step in range(N_TASKS + 1):
        blob = folder.state_path(step).read_bytes()
        payload = len(blob) - 8 - int.from_bytes(blob[:8], "little")
        rows = [row for row in folder.rows(LEDGER) if row["step"] == step]
        total = sum(row["bytes"] for row in rows if row["kind"] == "bytes" and row["category"] != "shared_pretrained")
        figures = next(row for row in rows if row["kind"] == "figures")
        assert total == figures["delta"] == payload, f"step {step}: rows {total}, ledger {figures['delta']}, {payload}"
        weighed = account(decode(blob), _after(of, step).category)
        assert figures["bank"] == weighed.bank, f"step {step}: bank {figures['bank']}, weighed {weighed.bank}"


def check_short_streams_work(of: Subject) -> None:
    """One document is a stream."""
    found = trace(experiment(of, toy_corpus(1, 1)))
    assert len(found.hashes) == 2, "a stream of one document must leave what was prepared, and one state"


ALL: tuple[Callable[[Subject], None], ...] = tuple(
    value for name, value in list(globals().items()) if name.startswith("check_") and name != "check_leaf"
)


def run(of: Subject) -> Iterator[tuple[str, str | None]]:
    """Run all checks; give (what is promised, None or what happened instead) one by one."""
    return held(of, ALL)
