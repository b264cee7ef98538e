"""The run folder: what a run leaves on the disk, row by row, so that it can be killed at any moment and gone on with.

A step counts as done when its state file is whole (its SHA-256 stands beside it) and its score and ledger rows are
written. Rows of a step that is repeated replace the old ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn.errors import StateError, UserError
from clearn.state import Frozen, checksum, decode, write

if TYPE_CHECKING:
    from torch import Tensor

SCORES, LEDGER, STATUS, CONFIG, ENVIRONMENT = (
    "scores.jsonl",
    "ledger.jsonl",
    "status.json",
    "config.yaml",
    "environment.json",
)


@dataclass(frozen=True)
class Whole:
    """A state file that is as it was written."""

    step: int
    frozen: Frozen
    sha256: str


class RunFolder:
    """Paths and files of one run.

    Attributes:
        path: the folder.
        arrays: what states are read as: "torch" tensors, or "numpy" arrays without loading torch.
    """

    def __init__(self, path: Path, arrays: str = "torch") -> None:
        self.path, self.arrays = path, arrays

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made or written.
        """
        try:
            (self.path / "state").mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write the run folder {self.path}: {error.strerror or error}; choose another place with "
                "out=FOLDER"
            ) from error

    def state_path(self, step: int) -> Path:
        """Where the state after `step` tasks lies."""
        return self.path / "state" / f"{step:04d}.safetensors"

    def write_state(self, step: int, blob: bytes) -> str:
        """Write a state file and, after it, its SHA-256; give the latter."""
        digest = checksum(blob)
        write(self.state_path(step), blob)
        write(self.path / "state" / f"{step:04d}.safetensors.sha256", f"{digest}\n".encode())
        return digest

    def write_evidence(self, step: int, answers: Mapping[str, Tensor]) -> None:
        """Write what was answered around a request, see `clearn.learning.examining`."""
        from safetensors.numpy import save

        (self.path / "evidence").mkdir(exist_ok=True)
        arrays = {name: answers[name].numpy() for name in sorted(answers)}
        write(self.path / "evidence" / f"{step:04d}.safetensors", save(arrays))

    def read_state(self, step: int) -> Whole:
        """Read a state file.

        Raises:
            StateError: it is missing, damaged, or no state of ours; names the file.
        """
        path = self.state_path(step)
        try:
            blob = path.read_bytes()
            expected = path.with_name(path.name + ".sha256").read_text(errors="replace").strip()
        except OSError as error:
            raise StateError(f"{path} is not whole: {error.strerror or error}") from error
        if checksum(blob) != expected:
            raise StateError(
                f"{path} is damaged: its SHA-256 is {checksum(blob)[:12]}…, {expected[:12]}… was written; it is "
                "left out"
            )
        return Whole(step, decode(blob, torch=self.arrays == "torch"), expected)

    def newest(self) -> tuple[Whole | None, list[str]]:
        """The newest whole state, or None, and what is wrong with newer files."""
        steps = {step for path in self.path.glob("state/*.safetensors") if (step := _step(path)) is not None}
        wrong: list[str] = []
        for step in sorted(steps, reverse=True):
            try:
                return self.read_state(step), wrong
            except StateError as error:
                wrong.append(str(error))
        return None, wrong

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a jsonl file up to the first that is none, such as a last line cut short by a kill."""
        try:
            text = (self.path / name).read_text(errors="replace")
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                break
            found.append(row)
        return found

    def add_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows and sync them to the disk; after a kill, call `drop_after` first.

        Raises:
            StateError: the disk is full or the folder cannot be written.
        """
        path = self.path / name
        try:
            with path.open("a") as file:
                file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StateError(
                f"cannot write {path}: {error.strerror or error}; make room, then go on with 'clearn resume'"
            ) from error

    def drop_after(self, step: int) -> None:
        """Remove states and rows of steps after `step`, and a row cut short."""
        for path in self.path.glob("state/*.safetensors*"):
            of = _step(path)
            if of is not None and (of > step or path.suffix == ".part"):
                path.unlink()
        for name in (SCORES, LEDGER):
            if (self.path / name).exists():
                kept = (json.dumps(row, separators=(",", ":")) + "\n" for row in self.rows(name) if row["step"] <= step)
                write(self.path / name, "".join(kept).encode())

    def put_status(self, state: str, step: int, steps: int, message: str | None = None) -> None:
        """Say how far the run is: running, done, stopped or failed."""
        self.put_json(STATUS, {"state": state, "step": step, "steps": steps, "message": message})

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        write(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def get_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file, None where it is missing, cut short or damaged."""
        try:
            found = json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def _step(path: Path) -> int | None:
    """The step that a file under `state/` belongs to; None for files that are not ours."""
    number = path.name.partition(".")[0]
    return int(number) if number.isdecimal() else None
