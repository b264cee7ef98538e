"""The bridge to Avalanche (Lomonaco et al. 2021; Carta et al. 2023): its strategies on our streams, weighed by us.

Avalanche is an optional package and takes seconds to import, so it is imported by `library` alone, when it is needed.
"""

from __future__ import annotations

import importlib
import warnings

from clearn.errors import UserError

MODULES = ("avalanche.benchmarks", "avalanche.training")


def library() -> None:
    """Import Avalanche, without what it says of solvers that it does not find.

    Raises:
        UserError: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no QP solver found", category=UserWarning)
        for name in MODULES:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] != "avalanche":
                    raise
                raise UserError(
                    "Avalanche's strategies and benchmarks need the package avalanche-lib, which is missing: "
                    "pip install 'clearn[avalanche]'"
                ) from error
