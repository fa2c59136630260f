"""The `sisug` command: layers, run folders, resume, errors and exit codes, shown on a toy module (every stage)."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sisug import cli
from sisug.errors import DataError

Command = Callable[..., int]

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Any, ...]:
    """Arguments of `fit`, `validate` and `test`: the base layer and a toy layer."""
    layer = tmp_path / "toy.yaml"
    layer.write_text(
        yaml.safe_dump(
            {
                "run": {"name": "toy"},
                "trainer": {
                    "accelerator": "cpu",
                    "max_epochs": 2,
                    "log_every_n_steps": 1,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                },
                "model": {"class_path": "toy_training.ToyModule"},
                "data": {"class_path": "toy_training.ToyData"},
            }
        )
    )
    return ("--config", EXPERIMENTS / "base.yaml", "--config", layer)


def checkpoint(folder: Path) -> dict[str, Any]:
    loaded = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


# --- without Lightning ---------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sisug.cli import top_help; text = top_help(); "
        "heavy = {'torch', 'lightning', 'numpy', 'jsonargparse', 'rich', 'PIL'} & set(sys.modules); "
        "assert 'fit' in text; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help(sisug: Command, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert sisug(*arguments) == 0
    out = capsys.readouterr().out
    for name in cli.TRAINING | cli.TOOLS:
        assert name in out


def test_version(sisug: Command, capsys: pytest.CaptureFixture[str]) -> None:
    import sisug as package

    assert sisug("--version") == 0
    assert capsys.readouterr().out == f"sisug {package.__version__}\n"


def test_unknown_command(sisug: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("paint") == 2
    err = capsys.readouterr().err
    assert "no command 'paint'" in err
    assert "validate" in err  # what there is


@pytest.mark.parametrize("name", list(cli.TOOLS))
def test_tools_exist(sisug: Command, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert sisug(*name.split(), "--help") == 0
    assert f"usage: sisug {name}" in capsys.readouterr().out


def a_tool(path: Path, count: int = 2) -> str:
    """Do something with a file.

    Args:
        path: the file.
        count: how often.
    """
    if not path.exists():
        raise DataError(f"{path} is not there", "it does not exist", "make it")
    return f"{path.name} {count}"


def interrupted_tool() -> None:
    """Be stopped by the user."""
    raise KeyboardInterrupt


def full_disk_tool() -> None:
    """Meet a full disk."""
    raise OSError(28, "No space left on device", "x.npy")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in (("toy do", a_tool), ("toy stop", interrupted_tool), ("toy fill", full_disk_tool)):
        monkeypatch.setitem(cli.TOOLS, name, (f"{__name__}:{function.__name__}", "a line of help"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


@pytest.mark.usefixtures("tools")
def test_tool_takes_its_options_from_the_signature(
    sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").touch()
    assert sisug("toy", "do", "a.txt", "--count", "3") == 0
    assert capsys.readouterr().out == "a.txt 3\n"


@pytest.mark.usefixtures("tools")
def test_group_alone_lists_its_commands(sisug: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("toy") == 0
    assert "toy do" in capsys.readouterr().out
    assert sisug("toy", "dance") == 2
    assert "no command 'toy dance'" in capsys.readouterr().err


@pytest.mark.usefixtures("tools")
def test_users_error_is_a_message(sisug: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("toy", "do", "none.txt") == 2
    err = capsys.readouterr().err
    assert "Remedy: make it" in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("tools")
def test_debug_shows_the_traceback(sisug: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_DEBUG", "1")
    with pytest.raises(DataError):
        sisug("toy", "do", "none.txt")


@pytest.mark.usefixtures("tools")
def test_interrupt_and_full_disk(sisug: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("toy", "stop") == 130
    assert sisug("toy", "fill") == cli.FULL_DISK
    err = capsys.readouterr().err
    assert "x.npy" in err
    assert "the disk is full" in err


# --- training ------------------------------------------------------------------------------------------------------


def test_later_layers_win_and_config_is_kept(sisug: Command, toy: tuple[Any, ...], tmp_path: Path) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("model: {init_args: {lr: 0.3}}\ntrainer: {max_epochs: 1}\n")
    assert sisug("fit", *toy, "--config", later, "--data.batch_size", 8) == 0
    run = tmp_path / "runs" / "toy" / "version_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == 0.3
    assert config["trainer"]["max_epochs"] == 1
    assert config["data"]["init_args"]["batch_size"] == 8
    assert checkpoint(run)["global_step"] == 2  # 16 images in batches of 8
    with (run / "metrics.csv").open() as file:
        logged = {key for row in csv.DictReader(file) for key, value in row.items() if value}
    assert {"train/loss", "val/loss", "progress/kimg", "progress/images_per_second"} <= logged


def test_saved_config_repeats_the_run_elsewhere(sisug: Command, toy: tuple[Any, ...], tmp_path: Path) -> None:
    assert sisug("fit", *toy) == 0
    runs = tmp_path / "runs" / "toy"
    assert sisug("fit", "--config", runs / "version_0" / "config.yaml") == 0
    first, second = checkpoint(runs / "version_0"), checkpoint(runs / "version_1")
    torch.testing.assert_close(first["state_dict"], second["state_dict"], rtol=0, atol=0)


def test_print_config_resolves_the_layers(
    sisug: Command, toy: tuple[Any, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sisug("fit", *toy, "--model.lr", 0.7, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["lr"] == 0.7
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["fit", "test"])
def test_values_made_of_others(
    sisug: Command,
    toy: tuple[Any, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    # Across layers, and of a value that the command line changes; jsonargparse calls this mode experimental.
    monkeypatch.setenv("SCRATCH", "scratch")
    later = tmp_path / "later.yaml"
    later.write_text(
        "model: {init_args: {lr: '${data.init_args.batch_size}'}}\n"
        "run: {root: '${oc.env:SCRATCH}', name: '${oc.env:NOT_SET,toy}'}\n"
    )
    assert sisug(command, *toy, "--config", later, "--data.batch_size", 8, "--print_config") == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["lr"] == 8
    assert config["run"] == {"root": "scratch", "name": "toy", "version": None}


def test_resume_equals_an_unbroken_run(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sisug("fit", *toy, "--run.name", "unbroken") == 0
    assert sisug("fit", *toy, "--model.interrupt_at", 20) == 130  # in the second of two epochs of 16 images
    assert "--ckpt_path last" in caplog.text
    broken = tmp_path / "runs" / "toy" / "version_0"
    assert checkpoint(broken)["state_dict"]["images_seen"] == 16

    assert sisug("fit", *toy, "--ckpt_path", "last") == 0
    assert [path.name for path in (tmp_path / "runs" / "toy").iterdir()] == ["version_0"]  # went on in its folder
    unbroken, resumed = checkpoint(tmp_path / "runs" / "unbroken" / "version_0"), checkpoint(broken)
    torch.testing.assert_close(resumed["state_dict"], unbroken["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(resumed["optimizer_states"], unbroken["optimizer_states"], rtol=0, atol=0)
    with (broken / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps[:4] == [0, 1, 2, 3]  # the first part's rows are still there
    assert steps[-4:] == [4, 5, 6, 7]
    assert (broken / "config.1.yaml").exists()


def test_terminated_by_a_scheduler(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sisug("fit", *toy, "--model.interrupt_at", 20, "--model.signal", int(signal.SIGTERM)) == 143
    assert "Interrupted after 20 images seen" in caplog.text
    assert checkpoint(tmp_path / "runs" / "toy" / "version_0")["state_dict"]["images_seen"] == 16


def test_last_without_an_earlier_run_starts_afresh(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sisug("fit", *toy, "--ckpt_path", "last") == 0
    assert "training starts from the beginning" in caplog.text
    assert checkpoint(tmp_path / "runs" / "toy" / "version_0")["epoch"] == 1


def test_users_values_win_over_a_checkpoints(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Guards the override of a private method of LightningCLI, which lets the checkpoint's values win.
    assert sisug("fit", *toy) == 0
    file = tmp_path / "runs" / "toy" / "version_0" / "checkpoints" / "last.ckpt"
    assert sisug("fit", *toy, "--ckpt_path", file, "--model.lr", 0.5, "--trainer.max_epochs", 3) == 0
    assert checkpoint(tmp_path / "runs" / "toy" / "version_1")["hyper_parameters"]["lr"] == 0.5
    assert "lr 0.1 -> 0.5" in caplog.text


def test_a_checkpoint_knows_its_values_in_test(sisug: Command, toy: tuple[Any, ...], tmp_path: Path) -> None:
    assert sisug("fit", *toy, "--model.lr", 0.25) == 0
    assert sisug("test", *toy, "--ckpt_path", "last") == 0
    with (tmp_path / "runs" / "toy" / "version_1" / "metrics.csv").open() as file:
        assert [float(row["test/lr"]) for row in csv.DictReader(file)] == [0.25]


def test_a_named_run_goes_on_and_no_other(sisug: Command, toy: tuple[Any, ...], tmp_path: Path) -> None:
    named = [(*toy, "--run.version", name, "--ckpt_path", "last") for name in ("one", "two")]
    assert sisug("fit", *named[0]) == 0
    assert sisug("fit", *named[1]) == 0  # begins afresh, though there is a newer run of this experiment
    assert {folder.name for folder in (tmp_path / "runs" / "toy").iterdir()} == {"one", "two"}
    seen = checkpoint(tmp_path / "runs" / "toy" / "one")["state_dict"]["images_seen"]
    assert sisug("fit", *named[0], "--trainer.max_epochs", 4) == 0
    assert checkpoint(tmp_path / "runs" / "toy" / "one")["state_dict"]["images_seen"] > seen
    assert checkpoint(tmp_path / "runs" / "toy" / "two")["state_dict"]["images_seen"] == seen


@pytest.mark.slow
def test_sigterm_ends_the_process_by_the_signal(toy: tuple[Any, ...], tmp_path: Path) -> None:
    # An agent of W&B takes an exit code above 0 for a failed run, also where it had asked the run to end.
    arguments = [str(part) for part in (*toy, "--model.interrupt_at", 4, "--model.signal", 15)]
    done = subprocess.run(
        [sys.executable, "-m", "sisug", "fit", *arguments],
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{Path(__file__).parent}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -15, done.stderr


def test_overlays_run(sisug: Command, toy: tuple[Any, ...], tmp_path: Path) -> None:
    import wandb
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    overlays = [("--config", EXPERIMENTS / "overlays" / f"{name}.yaml") for name in ("smoke", "tensorboard", "wandb")]
    arguments = [part for overlay in overlays for part in overlay]
    try:
        assert sisug("fit", *toy, *arguments, "--run.root", "elsewhere", "--trainer.enable_progress_bar", "true") == 0
    finally:
        wandb.finish()
    assert not (tmp_path / "runs").exists()
    run = tmp_path / "elsewhere" / "toy" / "version_0"
    assert checkpoint(run)["state_dict"]["images_seen"] == 16  # two epochs of two batches of 4
    assert (run / "metrics.csv").exists()
    events = EventAccumulator(str(run))
    events.Reload()
    assert "train/loss" in events.Tags()["scalars"]
    assert list((tmp_path / "elsewhere" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
def test_ddp_overlay_runs(toy: tuple[Any, ...], tmp_path: Path) -> None:
    overlay = EXPERIMENTS / "overlays" / "ddp-cpu.yaml"
    arguments = [str(part) for part in (*toy, "--config", overlay)]
    environment = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sisug", "fit", *arguments],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "version_0"
    assert checkpoint(run)["state_dict"]["images_seen"] == 32
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    assert done.stderr.count("Done: 32 images seen") == 1  # the first process speaks for all


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "missing.yaml"), "missing.yaml"),
        (("--model.learning_rate", "1"), "learning_rate"),
        (("--trainer.max_epoch", "1"), "max_epoch"),
        (("--model", "toy_training.NoSuchModule"), "NoSuchModule"),
        (("--ckpt_path", "missing.ckpt"), "missing.ckpt does not exist"),
        (("--ckpt_path", "toy.yaml"), "no file that torch wrote"),
        (("--ckpt_path", "best"), "give its file, or `last`"),
        (("--run.root", "toy.yaml"), "is not a folder"),
    ],
)
def test_bad_input_is_a_message_and_leaves_nothing(
    sisug: Command,
    toy: tuple[Any, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    before = sorted(tmp_path.iterdir())
    assert sisug("fit", *toy, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 15  # readable: not buried under the list of all options
    assert sorted(tmp_path.iterdir()) == before


def test_a_checkpoint_cut_short(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("fit", *toy) == 0
    whole = (tmp_path / "runs" / "toy" / "version_0" / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert sisug("fit", *toy, "--ckpt_path", "cut.ckpt") == 2
    assert "cut short" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["1e5", "12e34567"])
def test_names_that_look_like_numbers_stay_names(
    sisug: Command, toy: tuple[Any, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    later = tmp_path / "later.yaml"  # what is read again after its references are resolved
    later.write_text("model: {init_args: {lr: '${data.init_args.batch_size}'}}\n")
    assert sisug("fit", *toy, "--config", later, f"--run.name={name}", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["run"]["name"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trainer.enable_checkpointing", "false"), "enable_checkpointing=False"),
        (("--trainer.barebones", "true"), "barebones"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(
    sisug: Command,
    toy: tuple[Any, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert sisug("fit", *toy, *arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"gradient_clip_val": 1.0}, "trainer.gradient_clip_val 1.0 with Module"),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches 2 with Module"),
        ({"precision": "64-true"}, "trainer.precision 64-true with Module"),
        ({"precision": "bf16-true"}, "trainer.precision bf16-true with Module"),
        ({}, None),
        ({"precision": 32, "gradient_clip_val": 0}, None),
        ({"precision": "bf16-mixed"}, None),
    ],
)
def test_options_that_manual_optimization_cannot_take(values: dict[str, Any], state: str | None) -> None:
    from sisug.errors import ConfigError
    from sisug.training.lightning_cli import check_manual_options

    options = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "precision": "32-true"} | values
    if state is None:
        check_manual_options(options, "Module")
        return
    with pytest.raises(ConfigError) as caught:
        check_manual_options(options, "Module")
    assert caught.value.state == state


@pytest.mark.parametrize("arguments", [("--trainer.logger", "false"), ("--trainer.fast_dev_run", "true")])
def test_nothing_is_written_into_the_current_folder(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    before = set(tmp_path.iterdir())
    assert sisug("fit", *toy, *arguments) == 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {"runs"}


def test_the_limit_on_free_space_can_be_lowered(
    sisug: Command, toy: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    usage = shutil.disk_usage("/")._replace(free=500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert sisug("fit", *toy) == cli.FULL_DISK
    assert "lower min_free_gb" in capsys.readouterr().err
    lower = '{"class_path": "sisug.training.run_folder.RunFolder", "init_args": {"min_free_gb": 0.1}}'
    assert sisug("fit", *toy, "--trainer.callbacks", f"[{lower}]") == 0


def test_a_data_worker_that_met_sigterm_first_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, sisug: Command
) -> None:
    from sisug.training.closing_line import was_terminated

    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")
    assert was_terminated(error)
    assert not was_terminated(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))

    def raising(_: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "_dispatch", raising)
    assert sisug("fit") == 143


def test_a_folder_that_holds_a_run_is_refused(
    sisug: Command, toy: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("fit", *toy) == 0
    assert sisug("fit", *toy, "--run.version", "version_0") == 2
    assert "holds another run" in capsys.readouterr().err


def test_test_without_a_trained_run(sisug: Command, toy: tuple[Any, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert sisug("test", *toy, "--ckpt_path", "last") == 2
    assert "train one first" in capsys.readouterr().err


def test_a_programming_error_keeps_its_traceback(
    sisug: Command, toy: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="toy failure"):
        sisug("fit", *toy, "--model.fail_at", 20)
    assert "Stopped by an error" in caplog.text


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    sisug: Command,
    toy: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sisug.training import checkpoint_io

    save, saved = torch.save, []

    def save_once(checkpoint: object, file: Any) -> None:
        if saved:
            file.write(b"half a file")
            raise OSError(28, "No space left on device")
        saved.append(True)
        save(checkpoint, file)

    monkeypatch.setattr(checkpoint_io.torch, "save", save_once)
    assert sisug("fit", *toy) == cli.FULL_DISK
    assert "the disk is full" in capsys.readouterr().err
    run = tmp_path / "runs" / "toy" / "version_0"
    assert checkpoint(run)["epoch"] == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
