"""metrics.csv that a resumed run goes on writing (every stage)."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class RunCSVLogger(CSVLogger):
    """Lightning's CSVLogger, except that an existing metrics.csv is continued instead of deleted.

    Rows that the interrupted run logged after its last checkpoint stay in the file; the resumed run logs those steps
    again, with equal values.

    Args:
        save_dir: folder of all runs.
        name: the experiment; its runs lie in `save_dir/name`.
        version: the run; by default the next free `version_N`.
        flush_logs_every_n_steps: batches between two writes of the file.
    """

    def __init__(
        self,
        save_dir: str = "runs",
        name: str = "lightning_logs",
        version: int | str | None = None,
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(save_dir, name=name, version=version, flush_logs_every_n_steps=flush_logs_every_n_steps)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer behind `log_metrics`."""
        if self._experiment is None:
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _ContinuingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        # Lightning's method deletes an earlier metrics.csv; this one takes over its columns, so that `save` appends.
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])
