"""No address is read in the place of a file, and nothing that a checkpoint names is imported (every command)."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from generators.file_server import FileServer, serve

from sisug.cli import TOOLS
from sisug.errors import CheckpointError, ConfigError, check_local

Command = Callable[..., int]

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.fixture
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that appears where a canary is run."""
    return tmp_path_factory.mktemp("canary") / "was-run"


@pytest.fixture
def server(mark: Path) -> Iterator[FileServer]:
    content = io.BytesIO()
    torch.save({"state_dict": {}, "hyper_parameters": Canary(mark)}, content)
    with serve(FileServer(content.getvalue())) as running:
        yield running


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Any, ...]:
    layer = tmp_path / "toy.yaml"
    model, data = {"class_path": "toy_training.ToyModule"}, {"class_path": "toy_training.ToyData"}
    trainer = {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False}
    layer.write_text(yaml.safe_dump({"run": {"name": "toy"}, "trainer": trainer, "model": model, "data": data}))
    return ("--config", EXPERIMENTS / "base.yaml", "--config", layer)


def refused(capsys: pytest.CaptureFixture[str], server: FileServer, mark: Path) -> None:
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    assert "it is an address" in lines[0]
    assert "Traceback" not in text
    assert server.asked == []
    assert not mark.exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
@pytest.mark.parametrize("form", ["{}", "simplecache::{}", "filecache::{}"])
def test_training_commands_refuse_an_address(
    sisug: Command,
    toy: tuple[Any, ...],
    server: FileServer,
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    form: str,
) -> None:
    assert sisug(command, *toy, "--ckpt_path", form.format(server.url)) == 2
    refused(capsys, server, mark)


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
@pytest.mark.parametrize("scheme", ["https", "ftp", "file", "s3", "gs", "hf", "memory", "HTTP"])
def test_every_scheme_is_refused(
    sisug: Command,
    toy: tuple[Any, ...],
    tmp_path: Path,
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    scheme: str,
) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": Canary(mark)}, tmp_path / "x.ckpt")
    assert sisug(command, *toy, "--ckpt_path", f"{scheme}://{tmp_path}/x.ckpt") == 2
    assert "it is an address" in capsys.readouterr().err
    assert not mark.exists()


TOOL_OPTIONS = [
    "annotate check ADDRESS",
    "annotate export ADDRESS out --labels avatars",
    "annotate export avatars out --labels ADDRESS",
    "data check ADDRESS",
    "demo --mapper [ADDRESS]",
    "data convert ADDRESS --to out",
    "data plot --data ADDRESS",
    "evaluate --protocol quality --settings.mapper ADDRESS",
    "evaluate --protocol quality --settings.data ADDRESS",
    "generate --mapper ADDRESS --input x.png --out out",
    "generate --rearranger ADDRESS --exemplar 3 --out out",
    "generate --mapper avatars-seg --input ADDRESS --out out",
    "generate --mapper avatars-seg --input x.png --out ADDRESS",
    "generate --mapper avatars-seg --input x.png --out out --style_from ADDRESS",
    "generate --mapper avatars-seg --exemplar ADDRESS --out out",
    "generate --mapper avatars-seg --input x.png --out out --generator ADDRESS",
    "generator convert ADDRESS x.safetensors",
    "generator inspect ADDRESS",
    "generator score --generators [ADDRESS]",
    "mapper export ADDRESS.ckpt x.safetensors",
    "mapper export ADDRESS x.safetensors",
    "rearranger export ADDRESS.ckpt x.safetensors",
    "judge export ADDRESS.ckpt x.safetensors",
    "sweep ADDRESS",
]


NAMES_ONLY = {"train-all"}
"""Take the name of a preset, and nothing that could be an address."""


def test_every_tool_has_a_test_with_an_address() -> None:
    assert {name for name in TOOLS if any(line.startswith(name) for line in TOOL_OPTIONS)} == set(TOOLS) - NAMES_ONLY


@pytest.mark.parametrize("line", TOOL_OPTIONS)
def test_tools_refuse_an_address(
    sisug: Command, tmp_path: Path, server: FileServer, mark: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    assert sisug(*line.replace("ADDRESS", server.url).split()) == 2
    refused(capsys, server, mark)


@pytest.mark.parametrize("path", ["/a/b.ckpt", "a:b", "./http:/x", "C:/x", "C:\\x", "last", "owner/model", ""])
def test_paths_are_no_addresses(path: str) -> None:
    check_local(path)


@pytest.mark.parametrize("path", ["http://x/y", "http:/x/y", "file:///x", "a+b://x", "simplecache::s3://x", "x::yy:/z"])
def test_addresses(path: str) -> None:
    with pytest.raises(ConfigError, match="it is an address"):
        check_local(path)
    with pytest.raises(ConfigError, match="it is an address"):
        check_local(Path(path))


@pytest.mark.parametrize("asked", [None, False, True])
def test_the_reader_of_checkpoints_runs_nothing(tmp_path: Path, server: FileServer, mark: Path, asked: bool) -> None:
    from sisug.training.checkpoint_io import AtomicCheckpointIO

    reader = AtomicCheckpointIO()
    with pytest.raises(ConfigError):
        reader.load_checkpoint(server.url, weights_only=asked)
    torch.save({"state_dict": {}, "hyper_parameters": Canary(mark)}, tmp_path / "http.ckpt")
    with pytest.raises(CheckpointError, match="was not opened"):
        reader.load_checkpoint(tmp_path / "http.ckpt", weights_only=asked)
    assert server.asked == []
    assert not mark.exists()


def test_no_option_turns_the_reading_as_data_off(
    sisug: Command, toy: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("fit", "validate", "test"):
        assert sisug(command, *toy, "--weights_only", "false") == 2
        assert "weights_only" in capsys.readouterr().err


# --- classes that a checkpoint names ---------------------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that leaves a mark when it is imported, and its class."""
    source = f"""
        from pathlib import Path
        from toy_training import ToyModule
        Path({str(mark)!r}).touch()
        class Stranger(ToyModule):
            pass
    """
    (tmp_path / "stranger_to_sisug.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_to_sisug", raising=False)
    return "stranger_to_sisug.Stranger"


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_cannot_have_a_module_imported(
    sisug: Command,
    toy: tuple[Any, ...],
    tmp_path: Path,
    mark: Path,
    capsys: pytest.CaptureFixture[str],
    stranger: str,
    command: str,
    nested: bool,
) -> None:
    inner = {"lr": [{"class_path": stranger, "init_args": {}}]}
    named = inner if nested else {"_class_path": stranger, "lr": 0.5}
    torch.save({"state_dict": {}, "hyper_parameters": named}, tmp_path / "x.ckpt")
    assert sisug(command, *toy, "--ckpt_path", "x.ckpt") == 2
    assert f"names the class '{stranger}'" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["sisug.common.network_file.write_network_file", "sisug.nothing.Here", "sisugar.Thing", "sisug.cli.os"]
)
def test_of_sisug_a_checkpoint_may_name_classes_only(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"judge": {"class_path": name}}}, tmp_path / "x.ckpt")
    assert sisug("test", *toy, "--ckpt_path", "x.ckpt") == 2
    assert f"names the class '{name}'" in capsys.readouterr().err


def test_a_class_that_the_user_names_may_be_named_by_the_checkpoint(
    sisug: Command, toy: tuple[Any, ...], tmp_path: Path, mark: Path, stranger: str
) -> None:
    arguments = (*toy, "--model.class_path", stranger)
    assert sisug("fit", *arguments) == 0
    assert sisug("test", *arguments, "--ckpt_path", "last") == 0
    assert mark.exists()
