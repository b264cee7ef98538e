"""Sweeps: many runs of one config, here or elsewhere, gone on with where they stopped.

    plan(source, overrides, config, folder) -> jobs,  then run(jobs, launcher, ...) -> an outcome each

A launcher starts jobs, says which have ended, and cancels: `here` runs one after the other in this process, `local`
in processes of their own, `slurm` on a cluster. What it started is written into the sweep's folder, so that a sweep
that was killed finds the jobs still running and takes them over.
"""

from __future__ import annotations

from clearn.sweeping.jobs import Job, Outcome
from clearn.sweeping.launching import Launcher

__all__ = ["Job", "Launcher", "Outcome"]
