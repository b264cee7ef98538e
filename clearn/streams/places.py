"""Where data sets lie, for tables and images alike."""

from __future__ import annotations

import os
from pathlib import Path


def root_folder(root: str | Path | None) -> Path:
    """`root`, else CLEARN_DATA, else clearn's folder in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    if given := os.environ.get("CLEARN_DATA"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearn"
