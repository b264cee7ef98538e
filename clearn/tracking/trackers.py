"""The four trackers, each one of Lightning's loggers under one small roof: begin or go on, log a step, end.

Everything a tracker keeps on this machine lies in the run folder, under `tracking/NAME`.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clearn.tracking.options import Name, TrackerOptions

if TYPE_CHECKING:
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

Numbers = Mapping[str, float]
Ending = Literal["success", "failed", "stopped"]


class Tracker(ABC):
    """One tracker of one run.

    Attributes:
        rewrites: whether `begin` starts an empty log, so that all rows are logged again.
    """

    rewrites: ClassVar[bool] = False

    def __init__(self, options: TrackerOptions, folder: Path, run: str) -> None:
        """Nothing is opened yet.

        Args:
            options: section `tracker`.
            folder: of this tracker's files.
            run: what the run is called.
        """
        self.options, self.folder, self.run = options, folder, run

    @property
    def address(self) -> str:
        """Where the log lies but for the run folder, which may move; another address has another log."""
        return f"{self.options.entity or ''}/{self.options.project or ''}"

    @abstractmethod
    def begin(self, params: Mapping[str, Any], known: str | None) -> str:
        """Open the log.

        Args:
            params: the config, flat: dotted key to value.
            known: what this gave when the log was begun; None for a new one.

        Returns:
            What the log is found by again.
        """

    @abstractmethod
    def log(self, numbers: Numbers, step: int) -> None:
        """Log one step; it is kept when this returns."""

    @abstractmethod
    def end(self, how: Ending) -> None:
        """Close the log."""


class Csv(Tracker):
    """`metrics.csv`, a line a step, and `hparams.yaml`."""

    rewrites = True  # its columns are those of all steps, and Lightning never appends to a file it finds
    logger: CSVLogger

    def begin(self, params: Mapping[str, Any], known: str | None) -> str:
        from lightning.pytorch.loggers import CSVLogger

        shutil.rmtree(self.folder, ignore_errors=True)
        self.logger = CSVLogger(self.folder.parent, name=self.folder.name, version="")
        self.logger.log_hyperparams(dict(params))
        return "csv"

    def log(self, numbers: Numbers, step: int) -> None:
        self.logger.log_metrics(dict(numbers), step)
        self.logger.save()

    def end(self, how: Ending) -> None:
        self.logger.finalize(how)


class TensorBoard(Tracker):
    """An event file for each time the run is gone on with, in one folder; `tensorboard --logdir runs` finds it."""

    logger: TensorBoardLogger

    def begin(self, params: Mapping[str, Any], known: str | None) -> str:
        from lightning.pytorch.loggers import TensorBoardLogger

        self.logger = TensorBoardLogger(self.folder.parent, name=self.folder.name, version="", default_hp_metric=False)
        self._params = None if known else dict(params)
        return "tensorboard"

    def log(self, numbers: Numbers, step: int) -> None:
        if self._params is None:
            self.logger.log_metrics(dict(numbers), step)
        else:  # the tab of hyper-parameters shows those numbers that are given along with them
            self.logger.log_hyperparams(self._params, dict(numbers), step)
            self._params = None
        self.logger.experiment.flush()

    def end(self, how: Ending) -> None:
        self.logger.finalize(how)


class WandB(Tracker):
    """A run of Weights & Biases; its step is ours, so that a step sent twice is kept once."""

    logger: WandbLogger

    def begin(self, params: Mapping[str, Any], known: str | None) -> str:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        options = self.options
        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(  # not by the logger, whose `offline` would last for the whole process
            id=known,
            resume="allow",
            name=self.run,
            project=options.project or "clearn",
            entity=options.entity,
            dir=self.folder.parent,  # in which wandb makes its own folder, wandb/
            mode="offline" if options.offline else None,  # None: as WANDB_MODE says
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        self.logger = WandbLogger(experiment=run)
        if known is None:
            self.logger.log_hyperparams(dict(params))
        return str(self.logger.experiment.id)

    def log(self, numbers: Numbers, step: int) -> None:
        self.logger.experiment.log({**numbers, "trainer/global_step": step}, step=step)

    def end(self, how: Ending) -> None:
        self.logger.experiment.finish(exit_code=0 if how == "success" else 1)


class MLflow(Tracker):
    """A run of MLflow, in a database of its own unless a server or another database is named."""

    logger: MLFlowLogger

    @property
    def address(self) -> str:
        return f"{self.given or ''} {self.options.project or ''}"

    @property
    def given(self) -> str | None:
        """The server or database that was asked for."""
        return self.options.uri or os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def uri(self) -> str:
        """The server or database; MLflow 3 takes no plain folder any more."""
        return self.given or f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"

    def begin(self, params: Mapping[str, Any], known: str | None) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a local log must not need a network
        from lightning.pytorch.loggers import MLFlowLogger

        project = self.options.project or "clearn"
        self.folder.mkdir(parents=True, exist_ok=True)
        if known is None:
            self._make_experiment(project)
        self.logger = MLFlowLogger(project, self.run, self.uri, run_id=known, synchronous=True)
        if known is None:
            self.logger.log_hyperparams(dict(params))
        else:
            self.logger.experiment.update_run(known, "RUNNING")
        return str(self.logger.run_id)

    def _make_experiment(self, name: str) -> None:
        """Make the experiment where there is none yet; another run may be doing so at this moment."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        if client.get_experiment_by_name(name) is None:
            artifacts = None if self.given else (self.folder / "artifacts").resolve().as_uri()
            try:
                client.create_experiment(name, artifacts)
            except MlflowException:
                if client.get_experiment_by_name(name) is None:
                    raise

    def log(self, numbers: Numbers, step: int) -> None:
        self.logger.log_metrics(dict(numbers), step)

    def end(self, how: Ending) -> None:
        self.logger.finalize("KILLED" if how == "stopped" else how)


TRACKERS: dict[Name, type[Tracker]] = {"csv": Csv, "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
