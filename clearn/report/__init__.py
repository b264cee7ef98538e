"""Reports on finished and unfinished runs, from their run folders alone: no torch, no models, no method is loaded.

    load(paths) -> runs,  groups(runs) -> groups,  then terminal, markdown, csv or html

Runs of strategies (`learning`), those with requests to forget (`unlearning`), those of readers of documents (`reading`)
and those of protocols (`collections`) are told apart and never share a table. Importing this package loads neither rich
nor matplotlib; the writers that need them do.
"""

from __future__ import annotations

from clearn.report.grouping import Group
from clearn.report.loading import load
from clearn.report.page import html
from clearn.report.runs import Figures, Run
from clearn.report.writing import csv, csv_files, curve, groups, markdown, terminal

__all__ = ["Figures", "Group", "Run", "csv", "csv_files", "curve", "groups", "html", "load", "markdown", "terminal"]
