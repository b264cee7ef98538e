"""Kill a real run at random moments, resume it, and compare what it ends with to a run left alone.

    python benchmarks/kill_and_resume.py --kills 20
    python benchmarks/kill_and_resume.py --kills 20 --config quickstart strategy=icarl

Every kill is SIGKILL to a process of its own, `python -m clearn.cli run` or `resume`. A third of them wait for a file
to be written (a state, its checksum, score rows, ledger rows), half fall anywhere while it learns, the rest anywhere
from the process's start. Whenever a run reaches its end, its state files, score rows and ledger bytes are compared with
the undisturbed run's, bit for bit, and a new run is begun until all kills are spent. Exit code 1 on a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

CONFIG = """
name: kill_and_resume
stream: {name: class_incremental, data: digits, increment: 2}
strategy:
  name: memo
  backbone: mlp
  first: {epochs: 40, lr: 0.05, milestones: [30], batch_size: 32}
  later: {epochs: 40, lr: 0.05, milestones: [30], batch_size: 32}
budget: 500KiB
trainer: {threads: 1, accelerator: cpu}
"""
TIMED = ("seconds", "cpu_seconds", "peak_host", "peak_device")


def main() -> int:
    """Run the experiment; give the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--config", help="a config without a grid (default: MEMO on digits, five tasks)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clearn-kills-") as folder:
        return experiment(args, Path(folder), random.Random(args.seed))


def experiment(args: argparse.Namespace, folder: Path, rng: random.Random) -> int:
    """Kill, resume and compare until all kills are spent."""
    config = args.config or str(folder / "config.yaml")
    (folder / "config.yaml").write_text(CONFIG)
    expected_path = folder / "undisturbed"
    process, started = start(begin(config, args.overrides, expected_path)), time.monotonic()
    learning_began = learning(process, expected_path, None)
    status = process.wait()
    pace = Pace(time.monotonic() - started, time.monotonic() - learning_began)
    expected = outcome(expected_path)
    if status or not expected["states"]:
        print(f"the undisturbed run ended with exit code {status}: nothing to compare with")
        return 1
    print(
        f"undisturbed: {len(expected['states']) // 2} tasks in {pace.whole:.1f} s, {pace.learning:.1f} s of them "
        f"learning; {len(expected['scores'])} score rows",
        flush=True,
    )

    killed, runs, differences = 0, 0, 0
    path = folder / "run-0"
    while killed < args.kills:
        process = start(go_on(config, args.overrides, path))
        moment = wait(process, path, pace, rng)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
            print(f"kill {killed:2d}: {moment}; left behind {remains(path)}", flush=True)
        elif finished(path):
            runs, differences = runs + 1, differences + compare(path, expected, runs)
            path = folder / f"run-{runs}"
    if path.exists():
        status = start(go_on(config, args.overrides, path)).wait()
        if status:
            print(f"resume ended with exit code {status}")
        runs, differences = runs + 1, differences + compare(path, expected, runs)
    verdict = "all ended with the same bytes and scores" if not differences else f"{differences} ENDED OTHERWISE"
    print(f"{killed} kills over {runs} runs: {verdict}")
    return 1 if differences else 0


def begin(config: str, overrides: list[str], path: Path) -> list[str]:
    """The words that start a run."""
    return ["run", config, f"out={path}", *overrides]


def go_on(config: str, overrides: list[str], path: Path) -> list[str]:
    """The words that go on with a run, or start it where it was killed before its config was written."""
    return ["resume", str(path)] if (path / "config.yaml").exists() else begin(config, overrides, path)


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "clearn.cli", *words],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@dataclass(frozen=True)
class Pace:
    """Seconds of the undisturbed run: from the process's start, and from its first task's."""

    whole: float
    learning: float


def wait(process: subprocess.Popen[bytes], path: Path, pace: Pace, rng: random.Random) -> str:
    """Let the process go on to some moment; say which."""
    kind = rng.choices(["write", "learning", "anywhere"], [2, 3, 1])[0]
    began, before = time.monotonic(), identity(path / "status.json")
    if kind == "write":
        what, reached = writing(path, rng)
        while not reached() and process.poll() is None and time.monotonic() - began < 3 * pace.whole:
            pass  # without a pause: the file is there for a few milliseconds
        return f"at the sight of {what}"
    if kind == "learning":
        began = learning(process, path, before)
    seconds = rng.uniform(0, pace.learning if kind == "learning" else pace.whole)
    while time.monotonic() - began < seconds and process.poll() is None:
        time.sleep(0.001)
    since = "of learning" if kind == "learning" else "of its start"
    return f"within {time.monotonic() - began:.2f} s {since}, {place(path)}"


def learning(process: subprocess.Popen[bytes], path: Path, before: object) -> float:
    """Wait until the process says that it begins a task; give the time."""
    while identity(path / "status.json") == before and process.poll() is None:
        time.sleep(0.001)
    return time.monotonic()


def identity(path: Path) -> object:
    """What changes whenever a file is written anew; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def writing(path: Path, rng: random.Random) -> tuple[str, Callable[[], bool]]:
    """Choose a file of the next task, and the test whether it is being written."""
    step = steps_done(path) + 1
    state = path / "state" / f"{step:04d}.safetensors"
    before = {name: size(path / name) for name in ("scores.jsonl", "ledger.jsonl")}
    kind = rng.choice(["state", "checksum", "scores.jsonl", "ledger.jsonl"])
    if kind == "state":
        return f"half of state {step}", lambda: state.with_name(state.name + ".part").exists() or state.exists()
    if kind == "checksum":
        return f"state {step} without its checksum", state.exists
    return f"new rows in {kind}", lambda: size(path / kind) > before[kind]


def place(path: Path) -> str:
    """What the run folder says the process was at."""
    try:
        status = json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return "before the first task"
    return f"{status['state']}, {status['step']} of {status['steps']} tasks done"


def remains(path: Path) -> str:
    """Name what a kill left half done."""
    if not path.exists():
        return "nothing"
    found = sorted(str(p.relative_to(path)) for p in path.rglob("*.part*"))
    for state in sorted(path.glob("state/*.safetensors")):
        if not state.with_name(state.name + ".sha256").exists():
            found.append(f"state/{state.name} without its checksum")
    for name in ("scores.jsonl", "ledger.jsonl"):
        if size(path / name) and not (path / name).read_bytes().endswith(b"\n"):
            found.append(f"half a row in {name}")
    states, done = len(list(path.glob("state/*.sha256"))), steps_done(path)
    if states > done:
        found.append(f"state {states} without its rows")
    return ", ".join(found) or "nothing half done"


def steps_done(path: Path) -> int:
    """Tasks whose ledger row of figures is written."""
    return sum(row["kind"] == "figures" for row in rows(path / "ledger.jsonl"))


def finished(path: Path) -> bool:
    """Whether the run in a folder is over."""
    return "done," in place(path)


def outcome(path: Path) -> dict[str, list[str]]:
    """All that must not depend on kills: checksums of the state files, score rows, ledger rows without times."""
    ledger = [{key: value for key, value in row.items() if key not in TIMED} for row in rows(path / "ledger.jsonl")]
    return {
        "states": [f"{p.name} {sha256(p.read_bytes()).hexdigest()}" for p in sorted(path.glob("state/*"))],
        "scores": [json.dumps(row, sort_keys=True) for row in rows(path / "scores.jsonl")],
        "ledger": [json.dumps(row, sort_keys=True) for row in ledger],
    }


def compare(path: Path, expected: dict[str, list[str]], number: int) -> int:
    """Print whether a finished run is like the undisturbed one; give 1 if not."""
    found = outcome(path)
    wrong = [name for name in expected if found[name] != expected[name]]
    counts = ", ".join(f"{len(found[name])} {name}" for name in found)
    print(f"run {number}: " + (f"DIFFERENT {', '.join(wrong)}" if wrong else f"the same ({counts})"), flush=True)
    return int(bool(wrong))


def rows(path: Path) -> list[dict[str, object]]:
    """Rows of a jsonl file, up to one that is cut."""
    found: list[dict[str, object]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
