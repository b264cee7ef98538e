"""Find run folders and read each as what it is: of a strategy, with requests to forget, of a reader, of a protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from clearn.errors import UserError
from clearn.report.collections.runs import CollectionRun
from clearn.report.learning.runs import LearningRun
from clearn.report.reading.runs import ReadingRun
from clearn.report.runs import Row, Run, read_config, read_json, read_lines, section
from clearn.report.unlearning.runs import UnlearningRun

RUN_FILES = ("environment.json", "status.json", "scores.jsonl", "ledger.jsonl")


def load(paths: Sequence[Path]) -> list[Run]:
    """Read runs, each once, in the order of the paths and of their names.

    Args:
        paths: run folders, or folders that hold run folders at any depth.

    Raises:
        UserError: naming every path that does not exist, or that neither is nor holds a run folder.
    """
    found: dict[Path, Path] = {}
    mistakes = []
    for path in map(Path, paths):
        folders = list(_run_folders(path))
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
        if not folders:
            what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
            mistakes.append(
                f"{path} {what}: a run folder has config.yaml and one of {', '.join(RUN_FILES)}; "
                "give such a folder, or one that holds some"
            )
    if mistakes:
        raise UserError("\n".join(mistakes))
    return [_read(folder) for folder in found.values()]


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        if "config.yaml" in files and any(name in files for name in RUN_FILES):
            inner.clear()
            yield Path(folder)
        else:
            inner[:] = sorted(name for name in inner if not name.startswith("."))


def _read(path: Path) -> Run:
    """Read one run folder; what cannot be read makes the run "damaged", and the message says what and what to do."""
    config: Row = {}
    environment, status = read_json(path / "environment.json"), read_json(path / "status.json")
    try:
        config = read_config(path / "config.yaml")
        rows = [read_lines(path / name) for name in ("scores.jsonl", "ledger.jsonl")]
        run = _kind(path, config).from_rows(path, config, environment, *rows)
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"{type(error).__name__} {error}" if isinstance(error, (TypeError, KeyError, AttributeError)) else error
        advice = "resume the run to rewrite it, or leave the folder out"
        damaged = f"{why}; {advice}"
        steps = status.get("steps")
        return _kind(path, config)(path, config, environment, "damaged", steps=steps, message=damaged)
    return _settled(run, status)


def _kind(path: Path, config: Row) -> type[Run]:
    """Tell a run's kind by its config, and by what else is there where the config cannot be read."""
    if not config:
        try:
            start = (path / "scores.jsonl").read_bytes()[:4096]
        except OSError:
            start = b""
        if b'"frequencies"' in start:
            return CollectionRun
        if b'"prefix"' in start:
            return ReadingRun
        return UnlearningRun if (path / "evidence").is_dir() else LearningRun
    if "protocol" in config:
        return CollectionRun
    if section(config, "stream").get("name") == "documents":
        return ReadingRun
    return UnlearningRun if config.get("unlearner") else LearningRun


def _settled(run: Run, status: Row) -> Run:
    """Put in how far the run got, and doubt a status that its rows do not bear out."""
    state, message, steps = str(status.get("state", "unknown")), status.get("message"), status.get("steps")
    scored, weighed = run.scored, len(run.figures)
    step = min(scored, weighed)
    if state == "done" and not (0 < step == scored == weighed == (steps or step)):
        state = "damaged"
        message = (
            f"the status says done, but scores.jsonl holds {scored} and ledger.jsonl {weighed} whole {run.word}s "
            f"of {steps or 'an unknown number'}; resume the run to complete it, or leave the folder out"
        )
    elif state == "done" and run.lacking:
        state, message = "damaged", f"the status says done, but {run.lacking}; run it again, or leave the folder out"
    whole = step if steps is None and state == "done" else steps
    return replace(run, state=state, step=step, steps=whole, message=message)
