"""A step of reading: documents or a request to forget; freeze, weigh, write, rebuild from the bytes, ask.

Before the first step a reader is prepared; what that left is state 0, weighed and written like any other. Answers are
those of the rebuilt reader, so they rest on nothing but the weighed bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from clearn import seeds
from clearn.boundary import Step, rebuild, threads
from clearn.context import Context
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.ledger import account
from clearn.memory import keep_freed_memory
from clearn.parts.answers import exact
from clearn.preparations import Shelf
from clearn.progress import Progress
from clearn.reader import Reader
from clearn.reading.scoring import Inquiry, ask, inquiries, rows
from clearn.runner import Loop, ledger_rows
from clearn.state import Frozen, checksum, decode, encode, freeze, write
from clearn.stream import Document, ForgetDocuments, Reading

if TYPE_CHECKING:
    from clearn.reading.experiment import ReadingExperiment


class ReadingLoop(Loop):
    """A reader on its way through a corpus."""

    def __init__(self, experiment: ReadingExperiment, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress, experiment.steps)
        self.experiment = experiment
        self.corpus = experiment.corpus
        self.events = experiment.corpus.events
        self.planned = experiment.weights(experiment.plan())
        self.device = torch.device("cuda" if experiment.trainer.accelerator == "gpu" else "cpu")
        self.reader: Reader | None = None

    def running(self) -> AbstractContextManager[None]:
        """Torch's number of threads, and memory kept for the next batch."""
        keep_freed_memory()
        return threads(self.experiment.trainer.threads)

    def restore(self, frozen: Frozen, step: int) -> None:
        """Rebuild the reader."""
        self.reader = self._rebuilt(frozen, step)

    def reset(self) -> None:
        """No reader."""
        self.reader = None

    def step(self, index: int) -> None:
        """Read one task, or answer one request, and leave it behind."""
        if self.reader is None:
            self.reader = self._prepared()
        event, reader = self.events[index], self.reader.to(self.device)
        done = Step(index, self._context(index), self.device)
        if isinstance(event, Reading):
            self.progress.read(index, len(event.documents))
            with seeds.scope(self.experiment.seed, index, "read"), torch.no_grad(), done.timed():
                reader.eval()
                reader.learn(event, done.ctx)
            documents = len(event.documents)
        else:
            asked = self._asked_to_forget(event)
            documents = len(asked)
            self.progress.forget(index, documents)
            with seeds.scope(self.experiment.seed, index, "forget"), torch.no_grad(), done.timed():
                reader.eval()
                reader.forget(asked, done.ctx)
        self._leave(done, documents)

    def _asked_to_forget(self, request: ForgetDocuments) -> list[Document]:
        """The documents of a request, in the order in which they were read: they come with it."""
        gone = set(request.documents)
        return [one for reading in self.corpus[: request.after] for one in reading.documents if one.id in gone]

    def _prepared(self) -> Reader:
        """Prepare a fresh reader, or take up what a stopped run has prepared; write it as state 0."""
        self.folder.drop_after(-1)
        reader = self.experiment.build().to(self.device)
        done = Step(-1, self._context(0), self.device)
        with seeds.scope(self.experiment.build_seed, 0, "prepare"), done.timed():
            reader.prepare(self.corpus.upstream, done.ctx)
        frozen = freeze(reader.state(), reader.untouched())
        weights = account(frozen, reader.category)
        blob = encode(frozen)
        taken = {**done.figures(), "rebuilt": self.experiment.runner.rebuild, "sha256": checksum(blob)}
        figures = {"framing": len(blob) - weights.carried, "bank": weights.bank, **taken}
        self.folder.add_rows(LEDGER, ledger_rows(0, weights, figures))
        self.folder.write_state(0, blob)
        return self._rebuilt(decode(blob), 0) if self.experiment.runner.rebuild else reader

    def _context(self, index: int) -> Context:
        experiment = self.experiment
        return Context(
            seed=experiment.seed,
            step=index,
            trainer=experiment.trainer,
            device=self.device,
            augment=None,
            budget=experiment.budget,
            planned=self.planned,
            progress=self.progress,
            shelf=Shelf(experiment.cache, experiment.told | {"precision": experiment.trainer.precision}),
        )

    def _leave(self, done: Step, documents: int) -> None:
        """Freeze, weigh, write, throw the object away, rebuild it from the bytes, ask."""
        experiment, index, seconds, reader = self.experiment, done.index, done.seconds, self.reader
        assert reader is not None
        clock = time.perf_counter()
        held = 0 if reader.memory is None else len(reader.memory)
        frozen = freeze(reader.state(), reader.untouched())
        weights = account(frozen, reader.category)
        weight = experiment.budget.counted(weights)
        experiment.budget.check(weight, index, self.steps)
        blob = encode(frozen)
        digest = self.folder.write_state(index + 1, blob)
        seconds["write"] = time.perf_counter() - clock

        clock = time.perf_counter()
        if experiment.runner.rebuild:
            self.reader = reader = None
            self.reader = reader = self._rebuilt(decode(blob), index + 1)
        seconds["rebuild"] = time.perf_counter() - clock

        asked = inquiries(self.corpus.read(index + 1), self.corpus.forgotten(index + 1))
        clock = time.perf_counter()
        answers = ask(reader, asked)
        seconds["evaluate"] = time.perf_counter() - clock
        headline = reader.readout

        clock = time.perf_counter()
        if self._controlled(index, reader):
            self.reader = reader = None
            answers |= self._controls(asked, index)
            self.reader = self._rebuilt(decode(blob), index + 1)
        seconds["controls"] = time.perf_counter() - clock
        found = rows(asked, answers, index + 1, headline)
        self._write_answers(index + 1, asked, answers)
        self.folder.add_rows(SCORES, found)
        limit = experiment.budget.at(index, self.steps)
        figures = {
            "framing": len(blob) - weights.carried,
            "bank": weights.bank,
            "budget": limit,
            "slack": None if limit is None else limit - weight,
            "documents": documents,
            "held": held,
            "questions": sum(len(one.questions) for one in asked),
            **done.figures(),
            "rebuilt": experiment.runner.rebuild,
            "sha256": digest,
        }
        self.folder.add_rows(LEDGER, ledger_rows(index + 1, weights, figures))
        judged = [row for row in found if row["headline"]]
        total = sum(row["total"] for row in judged)
        self.progress.boundary(sum(row["correct"] for row in judged) / total if total else None, weight, limit)

    def _controlled(self, index: int, reader: Reader) -> bool:
        when = self.experiment.runner.controls
        return type(reader).controls and (when == "every" or (when == "end" and index == self.steps - 1))

    def _controls(self, asked: Sequence[Inquiry], index: int) -> dict[str, list[str]]:
        """The same questions to a reader that read nothing, and to one that read as many other documents.

        The other documents are of the upstream train split, drawn by the run's seed, so they are none of the stream's
        and are written like them.
        """
        prepared = self.folder.read_state(0).frozen
        stays = sum(len(reading.documents) for reading in self.corpus.read(index + 1))
        stays -= len(self.corpus.forgotten(index + 1))
        others = self.corpus.upstream.train.documents
        rng = seeds.generator(self.experiment.seed, index, "controls")
        drawn = [others[i] for i in torch.randperm(len(others), generator=rng)[:stays].tolist()]
        found: dict[str, list[str]] = {}
        for name, documents in (("empty", []), ("shuffled", drawn)):
            if name == "shuffled" and len(drawn) < stays:
                self.progress.note(
                    f"no control with a foreign memory: it needs {stays} upstream documents, there are {len(drawn)}"
                )
                continue
            twin = self._rebuilt(prepared, 0)
            with seeds.scope(self.experiment.seed, index, f"controls/{name}"), torch.no_grad():
                for info in (reading.info for reading in self.corpus.read(index + 1)):
                    twin.grow(info)
                if documents:
                    twin.take_in(documents, self._context(index))
            found[name] = ask(twin, asked)[twin.readout]
            del twin
        return found

    def _write_answers(self, step: int, asked: Sequence[Inquiry], answers: dict[str, list[str]]) -> None:
        """Keep what was said, a line a question, for whoever wants to read it."""
        lines, at = [], 0
        for inquiry in asked:
            for question in inquiry.questions:
                said = {name: one[at] for name, one in answers.items()}
                right = {name: exact(one, question.answer) for name, one in said.items()}
                told = {"document": question.document, "question": question.text, "answer": question.answer}
                line = {"task": inquiry.task + 1, **told, "said": said, "right": right}
                lines.append(json.dumps(line, ensure_ascii=False))
                at += 1
        (self.folder.path / "answers").mkdir(exist_ok=True)
        write(self.folder.path / "answers" / f"{step:04d}.jsonl", "".join(f"{line}\n" for line in lines).encode())

    def _rebuilt(self, frozen: Frozen, step: int) -> Reader:
        seen = tuple(reading.info for reading in self.corpus.read(step))
        return rebuild(self.experiment.build(), frozen, seen, self.experiment.seed, step).to(self.device)
