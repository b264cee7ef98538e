"""Reports on finished and unfinished runs, from their run folders alone: no torch, no models, no method is loaded.

    load(paths) -> runs,  groups(runs) -> groups,  then terminal, markdown, csv or html

Importing this package loads neither rich nor matplotlib; the writers that need them do.
"""

from __future__ import annotations

from clearn.report.grouping import Group, groups
from clearn.report.page import html
from clearn.report.runs import Figures, Run, load
from clearn.report.tables import csv, markdown, terminal

__all__ = ["Figures", "Group", "Run", "csv", "groups", "html", "load", "markdown", "terminal"]
