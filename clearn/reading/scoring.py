"""Asking: answers to all questions so far, and counts of those that are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clearn.parts.answers import exact, exact_prefix, f1
from clearn.reader import Reader
from clearn.stream import Question, Reading


@dataclass(frozen=True)
class Inquiry:
    """Questions that are counted together.

    Attributes:
        name: as printed, e.g. "task 1"; questions about documents that were to be forgotten are counted apart.
        task: index of the task whose documents they are about, from 0.
        questions: at least one.
    """

    name: str
    task: int
    questions: tuple[Question, ...]


def inquiries(readings: Sequence[Reading], forgotten: frozenset[str]) -> list[Inquiry]:
    """What is asked after some tasks: of each its questions; those about forgotten documents under another name."""
    found = []
    for reading in readings:
        index = reading.info.index
        stays = tuple(q for q in reading.questions if q.document not in forgotten)
        gone = tuple(q for q in reading.questions if q.document in forgotten)
        found += [Inquiry(f"task {index + 1}", index, stays)] if stays else []
        found += [Inquiry(f"task {index + 1}, forgotten", index, gone)] if gone else []
    return found


@torch.no_grad()
def ask(reader: Reader, asked: Sequence[Inquiry]) -> dict[str, list[str]]:
    """All questions at once: read-out -> answers in the order of the inquiries."""
    reader.eval()
    queries = [question.query for inquiry in asked for question in inquiry.questions]
    found = reader.read(queries)
    wrong = {name: len(answers) for name, answers in found.items() if len(answers) != len(queries)}
    assert not wrong, f"{type(reader).__name__} was asked {len(queries)} questions and gave {wrong} answers"
    return found


def rows(
    asked: Sequence[Inquiry], answers: Mapping[str, Sequence[str]], step: int, headline: str
) -> list[dict[str, Any]]:
    """One row per inquiry and read-out.

    `correct` counts exact matches of normalised answers, `prefix` those by the published definition (a prefix of the
    normalised answer, mbc.md section 3), `f1` is the sum of the questions' F1; `classes` counts exact matches by kind.
    """
    found = []
    for readout, said in answers.items():
        at = 0
        for inquiry in asked:
            mine = said[at : at + len(inquiry.questions)]
            at += len(inquiry.questions)
            found.append(
                {
                    "step": step,
                    "task": inquiry.task + 1,
                    "probe": inquiry.name,
                    "readout": readout,
                    "headline": readout == headline,
                    **_counted(inquiry.questions, mine),
                }
            )
    return found


def _counted(questions: Sequence[Question], said: Sequence[str]) -> dict[str, Any]:
    kinds: dict[str, list[int]] = {}
    prefix, overlap = 0, 0.0
    for question, answer in zip(questions, said, strict=True):
        right = exact(answer, question.answer)
        count = kinds.setdefault(question.kind or "any", [0, 0])
        count[0] += right
        count[1] += 1
        prefix += exact_prefix(answer, question.answer)
        overlap += f1(answer, question.answer)
    return {
        "correct": sum(right for right, _ in kinds.values()),
        "total": len(questions),
        "classes": dict(sorted(kinds.items())),
        "prefix": prefix,
        "f1": round(overlap, 9),
    }
