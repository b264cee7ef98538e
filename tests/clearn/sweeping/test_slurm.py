"""The cluster's launcher: on a queue made up here, and on a real SLURM of two nodes on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clearn import cli
from clearn.errors import UserError
from clearn.options import SlurmOptions
from clearn.sweeping import Job, slurm
from clearn.sweeping.loop import Sweep
from clearn.sweeping.planning import plan
from clearn.sweeping.showing import View

from .conftest import LONG, Spawn, until
from .test_sweep import records, run_folders

SQUEUE = '#!/bin/sh\ncat "{0}/queue"\n'
SCANCEL = '#!/bin/sh\necho "$@" >> "{0}/cancelled"\nsed -i "s/|RUNNING|/|CANCELLED|/" "{0}/queue"\n'


class Cluster:
    """A queue in a file, which a script named squeue prints; jobs run only when a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parameters = folder, dict[str, Any]()
        self.submitted: list[tuple[str, Callable[[], int]]] = []
        self.then: Callable[[int], str] = lambda _: "COMPLETED"
        (folder / "queue").touch()

    def executor(self, folder: Path) -> Cluster:
        return self

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters

    def submit(self, fn: Callable[..., int], *args: Any) -> Any:
        number = len(self.submitted) + 1
        name = self.parameters["job_name"]
        self.submitted.append((name, lambda: fn(*args)))
        state = self.then(number)
        if state == "COMPLETED":
            self._in_a_process(*args)
        with (self.folder / "queue").open("a") as queue:
            queue.write(f"{number}|{state}|{name}\n")

        class Submitted:
            job_id = str(number)

        return Submitted()

    def _in_a_process(self, stem: str) -> None:
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-m", "clearn.sweeping.worker", stem], check=False, env=path)


@pytest.fixture
def cluster(here: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    pytest.importorskip("submitit")
    tools = here / "tools"
    tools.mkdir()
    for name in slurm.COMMANDS:
        text = {"squeue": SQUEUE, "scancel": SCANCEL}.get(name, "#!/bin/sh\n")
        (tools / name).write_text(text.format(tools))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm.Slurm, "pause", 0.01)
    made = Cluster(tools)
    monkeypatch.setattr(slurm, "submitit_executor", made.executor)
    return made


def swept(jobs: tuple[Job, ...], console: Any = None) -> Sweep:
    from rich.console import Console

    launcher = slurm.Slurm(SlurmOptions())
    one = Sweep(jobs, launcher, {"slurm": launcher}, View(console or Console(quiet=True), len(jobs)))
    Path("runs").mkdir(exist_ok=True)
    one.run()
    return one


def jobs(grid: str = "grid=[{seed: [0]}]") -> tuple[Job, ...]:
    return plan("small.yaml", ["out=runs", grid]).jobs


def test_cells_run_on_the_cluster_with_what_the_config_asks_for(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sweep.slurm={partition: short, cpus: 3, gpus: 1, memory_gb: 1.5, minutes: 7, account: me}"]
    assert cli.main(["sweep", "small.yaml", "--slurm", "out=runs", "grid=[{seed: [0, 1]}]", *asked]) == 0
    assert "2/2 done" in capsys.readouterr().out
    wanted = {"partition": "short", "cpus_per_task": 3, "gpus_per_node": 1, "mem": "1536M", "time": 7, "account": "me"}
    assert {key: cluster.parameters[key] for key in wanted} == wanted
    assert "qos" not in cluster.parameters
    assert "export OMP_NUM_THREADS=3" in cluster.parameters["setup"]
    assert len(run_folders("runs")) == 2


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("TIMEOUT", "killed by its time limit; its finished tasks are safe: give more with sweep.slurm.minutes"),
        ("OUT_OF_MEMORY", "killed for memory: it needed more than 4 GB; give more with sweep.slurm.memory_gb"),
        ("CANCELLED", "SLURM job 1 was cancelled from outside"),
        ("FAILED", "SLURM job 1 ended as FAILED; its log says why"),
    ],
)
def test_why_the_cluster_ended_a_job_is_told(state: str, said: str, cluster: Cluster) -> None:
    cluster.then = lambda _: state
    (outcome,) = swept(jobs()).ended.values()
    assert outcome.state == "failed"
    assert said in outcome.message
    assert len(cluster.submitted) == 1


def test_a_job_that_its_node_lost_is_started_again_but_not_for_ever(cluster: Cluster) -> None:
    cluster.then = lambda number: "NODE_FAIL" if number < 3 else "COMPLETED"
    (outcome,) = swept(jobs()).ended.values()
    assert outcome.state == "done"
    assert len(cluster.submitted) == 3
    cluster.then = lambda _: "NODE_FAIL"
    (outcome,) = swept(jobs("grid=[{seed: [5]}]")).ended.values()
    assert outcome.state == "lost"
    assert len(cluster.submitted) == 3 + 4


@pytest.mark.parametrize("known", [True, False], ids=["by number", "by name"])
def test_a_sweep_started_again_takes_over_and_submits_nothing_twice(known: bool, cluster: Cluster) -> None:
    (job,) = jobs()
    cluster.then = lambda _: "RUNNING"
    launcher = slurm.Slurm(SlurmOptions())
    launcher.submit(job)
    if not known:  # killed before the number was written
        record = job.files.read(job.files.record)
        job.files.put(job.files.record, {**(record or {}), "id": None})
    assert launcher.find(job) == "SLURM job 1"

    class Ends(View):
        def tick(self, running: Any) -> None:
            """The job ends while the second sweep watches."""
            if "RUNNING" in (cluster.folder / "queue").read_text():
                cluster._in_a_process(str(job.files.stem.resolve()))
                (cluster.folder / "queue").write_text(f"1|COMPLETED|{cluster.submitted[0][0]}\n")

    from rich.console import Console

    again = slurm.Slurm(SlurmOptions())
    again.pause = 0.3
    one = Sweep((job,), again, {"slurm": again}, Ends(Console(quiet=True), 1))
    one.run()
    assert [outcome.state for outcome in one.ended.values()] == ["done"]
    assert len(cluster.submitted) == 1


def test_a_queue_that_does_not_answer_for_a_while_changes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs()
    cluster.then = lambda _: "RUNNING"
    launcher = slurm.Slurm(SlurmOptions())
    launcher.submit(job)
    (cluster.folder / "squeue").write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    assert [launcher.poll([job]) for _ in range(slurm.SILENT - 1)] == [{}] * (slurm.SILENT - 1)
    with pytest.raises(UserError, match=r"SLURM does not answer \(no controller\): wait until it does"):
        launcher.poll([job])


def test_cancelling_cancels_by_number_and_by_name(cluster: Cluster) -> None:
    one, two = jobs("grid=[{seed: [0, 1]}]")
    cluster.then = lambda _: "RUNNING"
    launcher = slurm.Slurm(SlurmOptions())
    launcher.submit(one)
    launcher.submit(two)
    two.files.put(two.files.record, {"launcher": "slurm", "id": None, "name": "clearn-x"})
    launcher.cancel([one, two])
    assert (cluster.folder / "cancelled").read_text().split() == ["1", "--name=clearn-x"]


def test_jobs_that_slurm_may_still_have_are_not_started_elsewhere(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = jobs()
    cluster.then = lambda _: "RUNNING"
    slurm.Slurm(SlurmOptions()).submit(job)
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["sweep", "small.yaml", "--workers", "1", "out=runs", "grid=[{seed: [0]}]"]) == 2
    said = capsys.readouterr().err
    assert "runs of runs were given to SLURM, which may still have them" in said
    assert "remove runs/jobs" in said


def test_without_slurm_it_says_what_was_looked_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["sweep", "small.yaml", "--slurm"]) == 2
    said = capsys.readouterr().err
    assert "no SLURM on this machine: sbatch, srun, squeue, scancel were looked for on PATH" in said
    assert "or run here with --workers N" in said
    assert not Path("runs").exists()


def test_without_submitit_it_gives_the_install_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert cli.main(["sweep", "small.yaml", "--slurm"]) == 2
    assert "--slurm needs submitit: pip install 'submitit>=1.5'" in capsys.readouterr().err


# --- the real thing


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two nodes on loopback."""
    pytest.importorskip("submitit")
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge; not here: {', '.join(missing) or 'root'}")
    folder, script = tmp_path_factory.mktemp("slurm"), str(Path(__file__).parent / "slurm_loopback.sh")
    try:
        subprocess.run(["bash", script, "start", str(folder)], check=True, timeout=120)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield folder
    finally:
        subprocess.run(["bash", script, "stop", str(folder)], check=False, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_a_killed_sweep_and_a_lost_node(nodes: Path, here: Path, spawn: Spawn) -> None:
    words = ("sweep", "small.yaml", "--slurm", "out=runs", "sweep.slurm={memory_gb: 1, minutes: 20}")
    words = (*words, "grid=[{seed: [0, 1, 2, 3]}]", f"stream.rounds={2 * LONG}")
    first = spawn(*words)
    before = until(lambda: len(found := {k: v for k, v in records("runs").items() if v["id"]}) == 4 and found)
    until(lambda: len(run_folders("runs")) >= 2)
    first.kill()
    first.wait()
    second = spawn(*words)
    until(lambda: len(run_folders("runs")) >= 2)
    os.kill(int((nodes / "slurmd-n2.pid").read_text()), signal.SIGKILL)
    said, _ = second.communicate(timeout=800)
    assert second.returncode == 0, said
    assert "SLURM job" in said and "taken over: " in said
    assert len(run_folders("runs")) == 4
    after = records("runs")
    again = said.count("again: ")
    assert sum(after[name] != before[name] for name in before) <= again, "only what was lost was submitted again"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_time_limit_and_ctrl_c(nodes: Path, here: Path, spawn: Spawn) -> None:
    words = ("sweep", "small.yaml", "--slurm", "sweep.slurm={memory_gb: 1, minutes: 1}", "stream.rounds=50000")
    process = spawn(*words, "out=runs", "grid=[{seed: [0]}]")
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 1
    assert "killed by its time limit" in said
    process = spawn(*words, "out=stopped", "grid=[{seed: [0]}]")
    until(lambda: run_folders("stopped"))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    time.sleep(1)
    listed = subprocess.run(["squeue", "--me", "-h"], capture_output=True, text=True, check=True).stdout
    assert listed.strip() == ""
