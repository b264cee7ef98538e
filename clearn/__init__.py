"""clearn: continual learning under byte budgets. What is carried from task to task is weighed; nothing else is.

Everything here imports its heavy parts when it is called, so that the command line answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn.streams import from_arrays, from_dataset

if TYPE_CHECKING:
    from clearn.stream import Stream

__all__ = ["from_arrays", "from_dataset", "run"]


def run(
    stream: Stream,
    strategy: str,
    *,
    out: str | Path,
    budget: str | int | Mapping[str, Any] | None = None,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Run a method on a stream of yours, or go on with the run that is in the folder.

    Args:
        stream: e.g. of `from_arrays` or `from_dataset`.
        strategy: a method's name ('clearn list strategies').
        out: the run folder; 'clearn report OUT' reads it.
        budget: bytes ("1MiB", 500_000, "603x"), or a mapping as in a config's section `budget`; None weighs only.
        seed: of training; the class order's is the stream's.
        trainer: as in a config's section `trainer`.
        progress: show it.
        options: of the method, as in a config's section `strategy`.

    Returns:
        The run folder.

    Raises:
        ConfigError: an option that the method does not have, or the folder holds another run.
        BudgetExceeded: the model alone outweighs the budget.
    """
    from clearn.learning import on_stream
    from clearn.progress import ConsoleProgress, Progress
    from clearn.runner import run as run_experiment

    experiment = on_stream(stream, strategy, options, budget, seed, trainer or {})
    shown = Progress()
    if progress:
        from rich.console import Console

        shown = ConsoleProgress(Console())
    return run_experiment(experiment, Path(out), shown)
