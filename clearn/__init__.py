"""clearn: continual learning under byte budgets. What is carried from task to task is weighed; nothing else is.

Everything here imports its heavy parts when it is called, so that the command line answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearn.streams import from_arrays, from_dataset

if TYPE_CHECKING:
    import numpy as np

    from clearn.frequency import FrequencyProtocol
    from clearn.runner import Experiment
    from clearn.stream import Collection, Stream

    Values = Collection | np.ndarray[Any, Any]
    Tracker = str | list[str] | Mapping[str, Any] | None

__all__ = ["collect", "from_arrays", "from_dataset", "protocol", "run"]


def run(
    stream: Stream,
    strategy: str,
    *,
    out: str | Path,
    budget: str | int | Mapping[str, Any] | None = None,
    seed: int = 0,
    trainer: Mapping[str, Any] | None = None,
    tracker: Tracker = None,
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
        tracker: as in a config's section `tracker`: csv, tensorboard, wandb, mlflow, a list of them, or a mapping.
        progress: show it.
        options: of the method, as in a config's section `strategy`.

    Returns:
        The run folder.

    Raises:
        ConfigError: an option that the method does not have, or the folder holds another run.
        BudgetExceeded: the model alone outweighs the budget.
    """
    from clearn.stream import Corpus

    if isinstance(stream, Corpus):
        from clearn.reading import on_corpus

        return _into(on_corpus(stream, strategy, options, budget, seed, trainer or {}), out, tracker, progress)
    from clearn.learning import on_stream

    return _into(on_stream(stream, strategy, options, budget, seed, trainer or {}), out, tracker, progress)


def collect(
    values: Values,
    protocol: str,
    *,
    out: str | Path,
    k: int | list[int] | None = None,
    rounds: int = 1,
    budget: Mapping[str, Any] | None = None,
    runner: Mapping[str, Any] | None = None,
    seed: int = 0,
    tracker: Tracker = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Simulate a collection of your users' values under a privacy protocol, or go on with the one in the folder.

    Args:
        values: (n,) or (n, d) whole numbers from 0 that never change, or a collection of `clearn.streams.values`
            (`Changing` for values that do).
        protocol: its name ('clearn list protocols').
        out: the run folder; 'clearn report OUT' reads it.
        k: how many values each attribute has; by default one more than the largest that occurs.
        rounds: how often users are asked.
        budget: as in a config's section `budget`: client_bytes, bits_per_round.
        runner: as in a config's section `runner`: engine, repeats, memo, post.
        seed: of the simulation.
        tracker: as in a config's section `tracker`.
        progress: show it.
        options: of the protocol, as in a config's section `protocol`.

    Returns:
        The run folder.

    Raises:
        ConfigError: an option that the protocol does not have, or the folder holds another run.
        BudgetExceeded: a device would keep or send more than it may.
        DataError: values that are no whole numbers from 0.
    """
    from clearn.collecting import on_collection
    from clearn.stream import Collection
    from clearn.streams.values import static

    asked = values if isinstance(values, Collection) else static(values, k, rounds)
    return _into(on_collection(asked, protocol, options, budget or {}, runner or {}, seed), out, tracker, progress)


def protocol(name: str, domains: int | tuple[int, ...], **options: Any) -> FrequencyProtocol:
    """Make a privacy protocol: what a real `clearn.frequency.client.Client` and its server agree on.

    Args:
        name: of the protocol.
        domains: how many values each attribute has.
        options: as in a config's section `protocol`.

    Raises:
        ConfigError: an option that it does not have or refuses.
    """
    from clearn.collecting import protocol_of

    return protocol_of(name, options, (domains,) if isinstance(domains, int) else tuple(domains))


def _into(experiment: Experiment, out: str | Path, tracker: Tracker, progress: bool) -> Path:
    from clearn import tracking
    from clearn.progress import ConsoleProgress, Progress
    from clearn.runner import run as run_experiment

    shown = Progress()
    if progress:
        from rich.console import Console

        shown = ConsoleProgress(Console())
    experiment.config.update(tracking.asked(tracker))
    return run_experiment(experiment, Path(out), shown)
