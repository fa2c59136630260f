"""`sisug sweep`: finds the better half, goes on after any kill, never has two processes in one folder, stops early."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sisug.errors import ConfigError
from sisug.sweeps.commands import sweep, table
from sisug.sweeps.running import LocalSweep
from sisug.sweeps.sweep_file import read_sweep
from sisug.sweeps.trials import Trial, lock_trial, read_history, read_trials, write_trial

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import csv, json, os, sys, time
from pathlib import Path
options = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
folder = Path(options["run.root"], options["run.name"], "run-" + os.environ["WANDB_RUN_ID"])
alone = folder / "busy"
assert not alone.exists(), "two processes in one folder"
alone.touch()
metrics = folder / "metrics.csv"
done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
if not done:
    metrics.write_text("step,val/loss\\n")
with (folder / "starts.txt").open("a") as file:
    file.write("start\\n")
for step in range(done, int(options.get("steps", 3))):
    time.sleep(float(options.get("pause", 0.0)))
    with metrics.open("a") as file:
        file.write(f"{step},{abs(float(options['x']) - 0.7) + 1 / (step + 1)}\\n")
    if options.get("kill") == str(step) and not (folder / "killed").exists():
        (folder / "killed").touch()
        alone.unlink()
        os.kill(os.getpid(), 9)
    if options.get("fail") == str(step):
        alone.unlink()
        sys.exit("error: out of luck")
alone.unlink()
"""
"""A training in a few lines: logs as sisug does, goes on where it was, refuses a folder where another one runs."""


def sweep_file(tmp_path: Path, others: dict[str, Any] | None = None, **changes: Any) -> Path:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = {
        "program": str(program),
        "method": "bayes",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0, "distribution": "uniform"}} | (others or {}),
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def run(path: Path, count: int, workers: int = 1, out: str = "out") -> list[Trial]:
    folder = path.parent / out
    return LocalSweep(read_sweep(path), folder, count=count, workers=workers, poll=0.02).run()


def starts(trial: Trial, folder: Path) -> int:
    return len((folder / trial.folder_name / "starts.txt").read_text().splitlines())


def test_six_runs_find_the_better_half(tmp_path: Path) -> None:
    text = sweep(sweep_file(tmp_path), count=6, out=tmp_path / "out")
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["run"] for row in rows) == [f"run-{number:03d}" for number in range(1, 7)]
    scores = [float(row["val/loss"]) for row in rows]
    assert scores == sorted(scores)
    assert abs(float(rows[0]["x"]) - 0.7) < 0.25  # the half of the range around the best value
    assert rows[0]["run"] in text.splitlines()[1]


def test_more_runs_are_added_and_finished_ones_stay(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    first = run(path, 2)
    both = run(path, 4)
    assert [trial.values for trial in both[:2]] == [trial.values for trial in first]
    assert len(both) == 4
    assert [starts(trial, tmp_path / "out") for trial in both] == [1, 1, 1, 1]
    assert len(run(path, 3)) == 4  # nothing is thrown away


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, {"kill": {"value": 1}})
    first = run(path, 1)
    assert [(trial.state, len(trial.history)) for trial in first] == [("killed", 2)]
    second = run(path, 1)
    assert [(trial.state, len(trial.history)) for trial in second] == [("finished", 3)]
    assert starts(second[0], tmp_path / "out") == 2


def test_after_kill_9_of_the_sweep_six_rows_none_twice(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, {"pause": {"value": 0.3}})
    folder = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "sisug",
        "sweep",
        str(path),
        "--count",
        "6",
        "--out",
        str(folder),
        "--workers",
        "2",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    began = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(folder.glob("*/metrics.csv"))) >= 2, seconds=120)
    began.send_signal(signal.SIGKILL)
    began.wait()
    # Its two runs live on, and are neither started again nor lost.
    trials = run(path, 6, workers=2)
    assert [(trial.number, trial.state, len(trial.history)) for trial in trials] == [
        (number, "finished", 3) for number in range(1, 7)
    ]
    assert not list(folder.glob("*/busy"))


def test_two_sweeps_at_once_share_the_runs(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, {"pause": {"value": 0.05}})
    other = subprocess.Popen(
        [sys.executable, "-c", TWICE, str(path), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: (tmp_path / "out" / "run-001").exists(), seconds=120)
    trials = run(path, 6)
    assert other.wait(60) == 0
    assert [(trial.number, trial.state) for trial in trials] == [(number, "finished") for number in range(1, 7)]
    assert [starts(trial, tmp_path / "out") for trial in trials] == [1] * 6


TWICE = """
import sys
from pathlib import Path
from sisug.sweeps.running import LocalSweep
from sisug.sweeps.sweep_file import read_sweep
LocalSweep(read_sweep(Path(sys.argv[1])), Path(sys.argv[2]), count=6, poll=0.02).run()
"""


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_a_failed_run_is_a_row_with_its_reason_and_is_not_repeated(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, {"fail": {"value": 0}})
    for _ in range(2):
        trials = run(path, 2)
        assert [(trial.state, trial.note) for trial in trials] == [("failed", "error: out of luck")] * 2
    assert [starts(trial, tmp_path / "out") for trial in trials] == [1, 1]


def test_the_worse_half_ends_early(tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    grid = {"x": {"values": [0.7, 0.71, 0.0]}, "steps": {"value": 40}, "pause": {"value": 0.05}}
    path = sweep_file(tmp_path, grid, method="grid", early_terminate=early)
    trials = run(path, 3)
    assert {trial.values["x"]: trial.state for trial in trials}[0.0] == "stopped"
    assert {trial.values["x"]: trial.state for trial in trials}[0.7] == "finished"


def test_a_grid_ends(tmp_path: Path) -> None:
    trials = run(sweep_file(tmp_path, {"x": {"values": [0.1, 0.2]}}, method="grid"), 10)
    assert sorted(trial.values["x"] for trial in trials) == [0.1, 0.2]


def test_sigterm_ends_the_runs_and_the_next_call_goes_on(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, {"pause": {"value": 0.1}, "steps": {"value": 8}})
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(path, 1)
    (trial,) = read_trials(tmp_path / "out", "val/loss")
    assert trial.state == "killed"
    (tmp_path / "out" / "run-001" / "busy").unlink(missing_ok=True)
    (trial,) = run(path, 1)
    assert (trial.state, len(trial.history)) == ("finished", 8)


def test_a_folder_of_another_file_is_refused(tmp_path: Path) -> None:
    run(sweep_file(tmp_path), 1)
    with pytest.raises(ConfigError, match="another file"):
        run(sweep_file(tmp_path, {"y": {"value": 1}}), 1)


def test_workers_have_a_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    seen = sweep_file(tmp_path)
    (tmp_path / "program.py").write_text(
        PROGRAM + "(folder / 'gpu.txt').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\ntime.sleep(0.3)\n"
    )
    trials = run(seen, 2, workers=2)
    assert {(tmp_path / "out" / trial.folder_name / "gpu.txt").read_text() for trial in trials} == {"4", "6"}


def test_history_takes_the_later_of_two_rows_of_a_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n0,1.0,\n1,2.0,\n1,,5\n1,3.0,\n2,nan,\n3,")
    assert read_history(path, "a") == [1.0, 3.0]
    assert read_history(tmp_path / "none.csv", "a") == []


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first = lock_trial(tmp_path)
    assert first is not None
    assert lock_trial(tmp_path) is None
    os.close(first)
    again = lock_trial(tmp_path)
    assert again is not None
    os.close(again)


def test_table_lists_runs_without_a_score_last(tmp_path: Path) -> None:
    given = read_sweep(sweep_file(tmp_path))
    trials = [Trial(1, {"x": 1}), Trial(2, {"x": 2}, "finished", history=[3.0, 2.0]), Trial(3, {"x": 3}, history=[1.0])]
    rows = list(csv.DictReader(table(given, trials).splitlines()))
    assert [row["run"] for row in rows] == ["run-003", "run-002", "run-001"]
    assert rows[-1]["val/loss"] == ""
    for trial in trials:
        write_trial(tmp_path / "sweep", trial)
    assert [trial.values for trial in read_trials(tmp_path / "sweep", "a")] == [{"x": 1}, {"x": 2}, {"x": 3}]


@pytest.mark.slow
def test_a_real_training_is_swept(tmp_path: Path) -> None:
    toy = tmp_path / "toy-layer.yaml"
    toy.write_text(
        yaml.safe_dump(
            {
                "model": {"class_path": "toy_training.ToyModule"},
                "data": {"class_path": "toy_training.ToyData"},
                "trainer": {"max_epochs": 2, "accelerator": "cpu"},
            }
        )
    )
    experiments = REPOSITORY / "experiments"
    layers = [experiments / "base.yaml", toy, experiments / "overlays" / "sweep.yaml"]
    command = ["${env}", "${interpreter}", "-m", "${program}", "fit", *(f"--config={x}" for x in layers), "${args}"]
    rate = {"min": 1e-4, "max": 1.0, "distribution": "log_uniform_values"}
    path = sweep_file(tmp_path, program="sisug", command=command, parameters={"model.init_args.lr": rate})
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sisug", "sweep", str(path), "--count", "2", "--out", str(tmp_path / "out")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["run-001", "run-002"]
    assert [trial.state for trial in read_trials(tmp_path / "out", "val/loss")] == ["finished"] * 2
    assert all((tmp_path / "out" / run / "checkpoints" / "last.ckpt").is_file() for run in ("run-001", "run-002"))
