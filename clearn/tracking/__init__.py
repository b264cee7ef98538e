"""Trackers: what a run writes into its folder, row by row, is also logged to CSV, TensorBoard, W&B or MLflow.

    section `tracker` -> `TrackerOptions`;  `logs.following` watches a run folder's rows and logs each step once

Loops and methods know of no tracker: whatever they write as rows is followed. Lightning's loggers are imported when a
run with a tracker starts, and at no other time. Importing this package loads next to nothing, for configs need it.
"""

from __future__ import annotations

from clearn.tracking.options import TrackerOptions, asked, check_installed

__all__ = ["TrackerOptions", "asked", "check_installed"]
