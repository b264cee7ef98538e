"""A run that reads documents: state 0 is what was prepared, answers rest on weighed bytes, and it can be killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clearn
from clearn import cli, plugins
from clearn.boundary import rebuild
from clearn.config import load
from clearn.context import Context
from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.experiment import bind
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.ledger import Budget
from clearn.options import ReadingOptions, TrainerOptions
from clearn.progress import Progress
from clearn.reader import Reader
from clearn.reading import ReadingExperiment
from clearn.reading.scoring import Inquiry, inquiries, rows
from clearn.runner import Stopped, run, run_until
from clearn.stream import Corpus, Document, ForgetDocuments, Query, Question, Reading, Split, TaskInfo, Upstream

torch.set_num_threads(1)


class Notes:
    """Texts as bytes, one entry a document."""

    nominal_bytes = 0

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def state(self) -> dict[str, Tensor]:
        return {name: torch.tensor(list(text.encode()), dtype=torch.uint8) for name, text in self.texts.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.texts = {name: bytes(value.tolist()).decode() for name, value in sorted(state.items())}


class Parrot(Reader):
    """Answers with the last word of the text that a question names, or with what it was prepared with."""

    prepared = 0

    def __init__(self) -> None:
        super().__init__()
        self.memory: Notes = Notes()
        self.register_buffer("word", torch.zeros(4, dtype=torch.uint8))

    def prepare(self, upstream: Upstream, ctx: Context) -> None:
        type(self).prepared += 1
        self.word = torch.tensor(list(b"none"), dtype=torch.uint8)
        ctx.log("upstream", len(upstream.train.documents))

    def take_in(self, documents: Sequence[Document], ctx: Context) -> None:
        for one in documents:
            self.memory.texts[one.id] = one.text

    def answer(self, questions: Sequence[Query]) -> list[str]:
        other = bytes(self.word.tolist()).decode()
        return [
            self.memory.texts[q.document].split()[-1] if q.document in self.memory.texts else other for q in questions
        ]

    def forget(self, documents: Sequence[Document], ctx: Context) -> None:
        for one in documents:
            del self.memory.texts[one.id]


def reading(index: int, *names: str) -> Reading:
    documents = tuple(Document(name, f"{name} is {name}x") for name in names)
    questions = tuple(Question(f"what is {name}", name, answer=f"The {name}x", kind="name") for name in names)
    return Reading(TaskInfo(index, ()), documents, questions)


def corpus(*requests: ForgetDocuments, upstream: int = 9) -> Corpus:
    others = tuple(Document(f"u{i}", f"u{i} is none") for i in range(upstream))
    train = Split(others, tuple(Question("what", one.id, answer="none") for one in others))
    return Corpus((reading(0, "a", "b"), reading(1, "c"), reading(2, "d", "e")), Upstream(train, train), requests)


def experiment(of: Corpus | None = None, budget: Budget = Budget(), **runner: Any) -> ReadingExperiment:
    return ReadingExperiment(
        of or corpus(),
        Parrot,
        budget,
        trainer=TrainerOptions(accelerator="cpu", threads=1),
        runner=ReadingOptions(**{"cache": False, **runner}),
        config={"strategy": {"name": "parrot"}, "stream": {"name": "documents"}, "seed": 0},
        title="parrot",
    )


def files(path: Path) -> dict[str, bytes]:
    states = {one.name: one.read_bytes() for one in path.glob("state/*")}
    return (
        states
        | {"scores": (path / SCORES).read_bytes()}
        | {one.name: one.read_bytes() for one in path.glob("answers/*")}
    )


def test_every_task_s_questions_are_asked_from_then_on(tmp_path: Path) -> None:
    run(experiment(), tmp_path)
    found = RunFolder(tmp_path).rows(SCORES)
    memory = [(row["step"], row["probe"], row["correct"], row["total"]) for row in found if row["readout"] == "memory"]
    assert memory == [
        (1, "task 1", 2, 2),
        (2, "task 1", 2, 2),
        (2, "task 2", 1, 1),
        (3, "task 1", 2, 2),
        (3, "task 2", 1, 1),
        (3, "task 3", 2, 2),
    ]
    assert all(row["headline"] == (row["readout"] == "memory") for row in found)


def test_what_was_prepared_is_state_0_and_weighed(tmp_path: Path) -> None:
    run(experiment(), tmp_path)
    folder = RunFolder(tmp_path)
    assert bytes(folder.read_state(0).frozen.tensors["model/word"].tolist()) == b"none"
    ledger = folder.rows(LEDGER)
    first = [row for row in ledger if row["step"] == 0]
    assert [row["bytes"] for row in first if row["kind"] == "bytes"] == [4]
    assert first[-1]["logged"] == {"upstream": 9.0}
    last = ledger[-1]
    assert (last["documents"], last["held"], last["questions"]) == (2, 5, 5)
    assert last["bank"] == 5 * len("a is ax")
    assert last["delta"] == last["bank"] + 4


def test_controls_ask_an_empty_and_a_foreign_memory_at_the_end(tmp_path: Path) -> None:
    run(experiment(), tmp_path / "end")
    run(experiment(controls="every"), tmp_path / "every")
    run(experiment(controls="never"), tmp_path / "never")
    for name, steps in (("end", {3}), ("every", {1, 2, 3}), ("never", set())):
        found = [row for row in RunFolder(tmp_path / name).rows(SCORES) if row["readout"] in ("empty", "shuffled")]
        assert {row["step"] for row in found} == steps
        assert all(row["correct"] == 0 and not row["headline"] for row in found)
        assert {row["readout"] for row in found} == ({"empty", "shuffled"} if steps else set())
    assert (tmp_path / "end/state/0003.safetensors").read_bytes() == (
        tmp_path / "every/state/0003.safetensors"
    ).read_bytes()


class Says(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_foreign_memory_of_another_size_would_be_no_control(tmp_path: Path) -> None:
    seen = Says()
    run(experiment(corpus(upstream=4)), tmp_path, seen)
    assert {row["readout"] for row in RunFolder(tmp_path).rows(SCORES)} == {"memory", "empty"}
    assert seen.notes == ["no control with a foreign memory: it needs 5 upstream documents, there are 4"]


def test_answers_are_kept_for_who_wants_to_read_them(tmp_path: Path) -> None:
    run(experiment(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "answers/0003.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert lines[2] == {
        "task": 2,
        "document": "c",
        "question": "what is c",
        "answer": "The cx",
        "said": {"memory": "cx", "empty": "none", "shuffled": "none"},
        "right": {"memory": True, "empty": False, "shuffled": False},
    }


def test_counts_by_hand() -> None:
    asked = [
        Inquiry(
            "task 1",
            0,
            (
                Question("q", "d", answer="Paris", kind="name"),
                Question("q", "d", answer="19 May", kind="date"),
                Question("q", "d", answer="10 km", kind="number"),
            ),
        )
    ]
    (row,) = rows(asked, {"memory": ["paris!", "19 May 2020", "12 km"]}, 4, "memory")
    assert (row["correct"], row["prefix"], row["total"]) == (1, 2, 3)
    assert row["f1"] == pytest.approx(1 + 0.8 + 0.5)
    assert row["classes"] == {"date": [0, 1], "name": [1, 1], "number": [0, 1]}


def test_a_request_takes_a_document_out_and_its_questions_are_counted_apart(tmp_path: Path) -> None:
    of = corpus(ForgetDocuments(2, ("a", "c")))
    run(experiment(of), tmp_path)
    last = [row for row in RunFolder(tmp_path).rows(SCORES) if row["step"] == 4 and row["readout"] == "memory"]
    assert [(row["probe"], row["correct"], row["total"]) for row in last] == [
        ("task 1", 1, 1),
        ("task 1, forgotten", 0, 1),
        ("task 2, forgotten", 0, 1),
        ("task 3", 2, 2),
    ]
    assert [one.name for one in inquiries(of.readings, frozenset())] == ["task 1", "task 2", "task 3"]
    never = tmp_path / "never"
    unread = Corpus((reading(0, "b"), replace(reading(1), questions=()), reading(2, "d", "e")), of.upstream)
    run(experiment(unread), never)
    assert (tmp_path / "state/0004.safetensors").read_bytes() == (never / "state/0003.safetensors").read_bytes()


def test_a_reader_that_cannot_forget_is_refused_before_it_runs(tmp_path: Path) -> None:
    class Keeps(Parrot):
        forget = Reader.forget

    with pytest.raises(ConfigError, match="cannot forget documents"):
        run(replace(experiment(corpus(ForgetDocuments(1, ("a",)))), make=Keeps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("until", [1, 2])
def test_a_stopped_run_goes_on_with_the_same_bytes(until: int, tmp_path: Path) -> None:
    run(experiment(), tmp_path / "whole")
    run_until(experiment(), tmp_path / "parts", until)
    run(experiment(), tmp_path / "parts")
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_a_run_stopped_right_after_preparing_does_not_prepare_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(experiment(), tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(Parrot, "take_in", _stop)
        with pytest.raises(Stopped):
            run(experiment(), tmp_path / "run")
    assert [one.name for one in sorted((tmp_path / "run/state").glob("*.safetensors"))] == ["0000.safetensors"]
    before = Parrot.prepared
    run(experiment(), tmp_path / "run")
    assert Parrot.prepared == before
    assert files(tmp_path / "whole") == files(tmp_path / "run")


def _stop(*_: object) -> None:
    raise Stopped("SIGINT")


def test_rows_lost_with_a_kill_are_written_again(tmp_path: Path) -> None:
    run(experiment(), tmp_path)
    whole = files(tmp_path)
    for name in (SCORES, LEDGER):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(line for line in lines if json.loads(line)["step"] < 3))
    run(experiment(), tmp_path)
    assert files(tmp_path) == whole
    assert [row["step"] for row in RunFolder(tmp_path).rows(LEDGER) if row["kind"] == "figures"] == [0, 1, 2, 3]


def test_a_damaged_state_0_is_prepared_again(tmp_path: Path) -> None:
    run_until(experiment(), tmp_path, 0)
    run(experiment(), tmp_path / "whole")
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state/0000.safetensors").write_bytes(b"torn")
    run(experiment(), tmp_path)
    assert files(tmp_path / "whole")["0003.safetensors"] == files(tmp_path)["0003.safetensors"]


def test_budgets_count_the_bank_or_everything(tmp_path: Path) -> None:
    bank = 5 * len("a is ax")
    run(experiment(budget=Budget(bank, count="bank")), tmp_path / "bank")
    assert RunFolder(tmp_path / "bank").rows(LEDGER)[-1]["slack"] == 0
    with pytest.raises(BudgetExceeded, match="35 bytes"):
        run(experiment(budget=Budget(bank - 1, count="bank")), tmp_path / "less")
    with pytest.raises(BudgetExceeded, match="39 bytes"):
        run(experiment(budget=Budget(bank)), tmp_path / "all")
    with pytest.raises(BudgetExceeded, match="before it has read anything"):
        run(experiment(budget=Budget(3)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


TINY = "stream: {name: documents, data: copying, documents: 6, tasks: 2, upstream_documents: 12, val_documents: 2}\n"


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ("strategy: {name: replay}", "learns classes, but this stream has documents"),
        ("strategy: {name: bm25}\nunlearner: {name: ssd}", "takes documents out of its memory by itself"),
        ("strategy: {name: bm25, top: 3}", "no such option"),
        ("strategy: {name: bm25}\nbudget: {bytes: 40x}", "counts exemplar images"),
        ("strategy: {name: bm25}\nrunner: {controls: always}", "controls"),
    ],
)
def test_configs_that_cannot_be_meant(sections: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TINY + sections)
    with pytest.raises(ConfigError, match=told):
        bind(load(str(path)))


def test_a_reader_is_no_strategy_for_classes() -> None:
    with pytest.raises(ConfigError, match="reads documents, but this stream has classes"):
        bind(load("quickstart", ["strategy=bm25"]) | {"grid": None})


def test_run_report_fork_and_show_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARN_CACHE", str(tmp_path / "cache"))
    config, out = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(TINY + "strategy: {name: bm25}\ntrainer: {threads: 1}\n")
    assert cli.main(["show", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "upstream train: 12 documents, 12 questions" in shown
    assert cli.main(["run", str(config), f"out={out}"]) == 0
    assert cli.main(["fork", str(out), "--after", "1", f"out={tmp_path / 'forked'}", "seed=1"]) == 0
    same = [(tmp_path / name / "state/0002.safetensors").read_bytes() for name in ("run", "forked")]
    assert same[0] == same[1]  # no draw is made, so another seed changes nothing
    assert cli.main(["fork", str(out), "--after", "1", "stream.subset_seed=5", f"out={tmp_path / 'other'}"]) == 2
    assert "the changed stream differs" in capsys.readouterr().err
    assert cli.main(["report", str(out)]) == 0
    assert "bm25" in capsys.readouterr().out


def test_a_corpus_of_one_s_own_runs_from_python(tmp_path: Path) -> None:
    path = clearn.run(corpus(), "bm25", out=tmp_path / "run", progress=False, trainer={"threads": 1})
    assert RunFolder(path).rows(SCORES)[-1]["step"] == 3


def test_tied_pretrained_weights_are_weighed_once() -> None:
    from clearn.parts.language import FrozenLM, Lm

    reader = Parrot()
    reader.lm = FrozenLM(Lm())
    owned = {p.data_ptr(): p.nbytes for p in reader.lm.parameters()}
    assert sum(size for _, size in reader.untouched().values()) == sum(owned.values())
    assert len(reader.untouched()) > len(owned)  # the output matrix is the embeddings'


def test_a_state_that_lost_a_trained_weight_is_refused_and_not_filled_up_from_the_checkpoint(tmp_path: Path) -> None:
    path = clearn.run(corpus(), "uniform", out=tmp_path / "run", progress=False, trainer={"threads": 1})
    frozen = RunFolder(path).read_state(3).frozen
    first = max(frozen.tensors)
    torn = replace(frozen, tensors={name: value for name, value in frozen.tensors.items() if name != first})
    reader = plugins.find("strategies", "uniform")()
    with pytest.raises(StateError, match=f"1 trained weights are missing in this state, first '{first}'"):
        rebuild(reader, torn, [one.info for one in corpus()], 0, 3)
