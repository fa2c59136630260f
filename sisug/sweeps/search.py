"""Which run comes next, and which one stops early (all stages): W&B's own engine, the package `sweeps`.

The package's last release is of 2022, and it is still what W&B names for local controllers (`wandb[sweeps]`). It works
with today's NumPy and pydantic 2, whose warnings at its import are left out here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from sisug.common.seeding import seed_for
from sisug.errors import ConfigError
from sisug.sweeps.trials import Trial


def engine() -> ModuleType:
    """W&B's package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sweeps
    except ImportError as error:
        raise ConfigError(
            "the package sweeps is not installed",
            "W&B's own search chooses the runs of a sweep",
            'pip install "sweeps>=0.2", or pip install -e ".[sweeps]"',
        ) from error
    return sweeps


def violations(config: dict[str, Any]) -> list[str]:
    """What W&B's schema finds wrong in a sweep's configuration.

    Args:
        config: content of a sweep file.
    """
    engine()
    from sweeps.config.cfg import schema_violations_from_proposed_config

    if not isinstance(config.get("parameters", {}), dict):  # on which the package itself fails
        return ["parameters are not a list of names"]
    try:
        return [str(each) for each in schema_violations_from_proposed_config(config)]
    except ValueError as error:
        return [str(error)]


def next_values(config: dict[str, Any], trials: Sequence[Trial], *, seed: int = 0) -> dict[str, Any] | None:
    """Values of the next run's parameters; None where a grid has been run through.

    Args:
        config: content of a sweep file.
        trials: all runs so far, those that are going on included.
        seed: of the draws; with the same runs before it, a run has the same values.
    """
    state = np.random.get_state()  # noqa: NPY002  # the package draws from NumPy's global stream
    np.random.seed(seed_for(seed=seed, rank=0, images_seen=len(trials), purpose="sweep") % 2**32)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, on fits to few runs
            found = engine().next_run(config, [_as_run(config, trial) for trial in trials])
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return None if found is None else {name: _plain(each["value"]) for name, each in found.config.items()}


def to_stop(config: dict[str, Any], trials: Sequence[Trial]) -> set[int]:
    """Numbers of the runs that early termination ends now.

    Args:
        config: content of a sweep file; without `early_terminate`, none ends early.
        trials: all runs so far, with what they have logged.
    """
    if "early_terminate" not in config:
        return set()
    found = engine().stop_runs(config, [_as_run(config, trial) for trial in trials])
    return {int(each.name) for each in found}


def _as_run(config: Mapping[str, Any], trial: Trial) -> Any:
    # What a run had reached when it was stopped early is its score, as W&B's own server counts it.
    state = {"stopped": "finished", "killed": "running"}.get(trial.state, trial.state)
    name = config["metric"]["name"]
    summary = {name: trial.history[-1]} if trial.history else {}
    return engine().SweepRun(
        name=str(trial.number),
        state=state,
        config={key: {"value": value} for key, value in trial.values.items()},
        summaryMetrics=summary,
        sampledHistory=[{name: value} for value in trial.history],
    )


def _plain(value: Any) -> Any:
    """A number of Python's in the place of NumPy's, which a command line would show as `np.float64(0.1)`."""
    return value.item() if isinstance(value, np.generic) else value
