"""Training checkpoints as data: hostile ones are refused by name, in bounded time and memory, and never recommended."""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from generators.loading_process import LoadingProcess

from sisug.common.torch_files.data import load_data, load_run
from sisug.common.torch_files.pickles import read_pickle
from sisug.errors import CheckpointError, DataError

SECONDS, MEMORY = 3.0, 200 << 20
"""Processor time and memory that a refusal may take."""

PRIME = 2**61 - 1
"""Python looks integers up by their remainder by this number."""


class Call:
    """Pickles as a call of a function, by its name alone."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def saved(path: Path, hyper_parameters: Any, **more: Any) -> Path:
    torch.save({"state_dict": {"w": torch.zeros(2)}, "hyper_parameters": hyper_parameters, **more}, path)
    return path


def nested(depth: int) -> tuple[Any, ...]:
    """A tuple that holds itself twice, and so on: its hash takes 2^depth steps."""
    key: tuple[Any, ...] = ()
    for _ in range(depth):
        key = (key, key)
    return key


class SlowKey(dict[Any, Any]):
    """Pickles as a dictionary with a key that is never looked up here."""

    def __init__(self, key: object) -> None:
        super().__init__()
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, iter([(self.key, 1)])


def compressed(path: Path) -> Path:
    """A checkpoint whose one tensor of 3 GB of zeros was compressed to 3 MB."""
    elements = 3 << 28
    buffer = io.BytesIO()
    small = torch.zeros(1)
    torch.save({"state_dict": {"w": small}}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for entry in source.infolist():
            with target.open(entry.filename, "w", force_zip64=True) as out:
                if entry.filename.endswith("/data/0"):
                    block = bytes(1 << 26)
                    for _ in range(4 * elements // len(block)):
                        out.write(block)
                else:
                    out.write(source.read(entry))
    return path


HOSTILE: dict[str, Callable[[], Any]] = {
    "colliding keys": lambda: {k * PRIME: None for k in range(60_000)},
    "negative colliding keys": lambda: {-k * PRIME: None for k in range(60_000)},
    "a set of colliding numbers": lambda: {k * PRIME for k in range(60_000)},
    "3 GB of bytes": lambda: Call(bytearray, 3_000_000_000),
    "1 TB of bytes": lambda: Call(bytearray, 10**12),
    "a storage of 40 GB": lambda: Call(torch.FloatStorage, 10**10),
    "a tensor of 40 GB": lambda: Call(torch.Tensor, 10**10),
    "a key of tuples": lambda: SlowKey(nested(60)),
}


@pytest.fixture(scope="module")
def process() -> Iterator[LoadingProcess]:
    running = LoadingProcess(patience=20)
    yield running
    running.end()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_checkpoints_take_neither_time_nor_memory(tmp_path: Path, process: LoadingProcess, name: str) -> None:
    verdict = process.load(saved(tmp_path / "x.ckpt", HOSTILE[name]()))
    assert verdict.error == "CheckpointError", verdict
    assert verdict.seconds < SECONDS, verdict
    assert verdict.growth < MEMORY, verdict
    assert "weights_only" not in verdict.message
    assert "damaged" not in verdict.message


def test_a_generator_file_with_colliding_keys_takes_no_time(tmp_path: Path, process: LoadingProcess) -> None:
    torch.save({"g_ema": {}, "args": HOSTILE["colliding keys"]()}, tmp_path / "x.pt")
    verdict = process.load(tmp_path / "x.pt")
    assert verdict.error == "CheckpointError", verdict
    assert verdict.seconds < SECONDS, verdict


@pytest.mark.slow
def test_compressed_checkpoints_are_refused(tmp_path: Path, process: LoadingProcess) -> None:
    verdict = process.load(compressed(tmp_path / "x.ckpt"))
    assert verdict.error == "CheckpointError", verdict
    assert verdict.growth < MEMORY, verdict


def test_what_would_run_is_named_and_not_called_damaged(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", Call(open, str(tmp_path / "canary"), "w"))
    with pytest.raises(CheckpointError, match=r"was not opened.*names (io|_io)\.open.*nothing was run") as caught:
        load_run(path, "the checkpoint", "use another one")
    for word in ("damaged", "weights_only", "trust"):
        assert word not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_a_plain_pickle_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps(Call(open, str(tmp_path / "canary"), "w")))
    with pytest.raises(CheckpointError, match=r"names (io|_io)\.open"):
        load_data(path, "the checkpoint", "use another one")
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="a pickle that torch did not write"):
        load_data(path, "the checkpoint", "use another one")


@pytest.mark.parametrize("values", [[1, 2], "text", {3: 4}, 7])
def test_hyperparameters_of_another_kind_are_a_sentence(tmp_path: Path, values: Any) -> None:
    with pytest.raises(CheckpointError, match="hyper_parameters are no values by name"):
        load_run(saved(tmp_path / "x.ckpt", values), "the checkpoint", "use another one")


def test_no_hyperparameters_are_none(tmp_path: Path) -> None:
    assert load_run(saved(tmp_path / "x.ckpt", None), "the checkpoint", "")["hyper_parameters"] == {}


def test_large_numbers_are_values(tmp_path: Path) -> None:
    content = load_run(saved(tmp_path / "x.ckpt", {"state": 2**127 + 1}), "the checkpoint", "")
    assert content["hyper_parameters"]["state"] == 2**127 + 1
    with pytest.raises(CheckpointError, match="something else than tensors and plain data"):
        load_run(saved(tmp_path / "x.ckpt", {"state": 10**5000}), "the checkpoint", "")


@pytest.mark.parametrize(
    "value", [10**5000, -(10**5000), 1e300, float("nan"), "x" * 5000, [1], True], ids=lambda value: type(value).__name__
)
def test_settings_that_are_no_small_numbers_are_a_sentence(value: object) -> None:
    from sisug.generators.formats.source import checked_settings

    with pytest.raises(CheckpointError, match="conv_clamp is ") as caught:
        checked_settings({"conv_clamp": value}, "the file")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_tensors_come_back_as_they_were(tmp_path: Path, lazy: bool, old: bool) -> None:
    if lazy and old:
        pytest.skip("torch has views of files of its present layout only")
    state = OrderedDict(a=torch.arange(6.0).view(2, 3).t(), b=torch.ones(3, dtype=torch.bfloat16), c=torch.tensor(7))
    content = {"state_dict": state, "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}}], "epoch": 4}
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not old)
    found = load_run(tmp_path / "x.ckpt", "the checkpoint", "", lazy=lazy)
    torch.testing.assert_close(found["state_dict"], state, rtol=0, atol=0)
    assert found["optimizer_states"][0]["state"][0]["step"] == 3
    assert found["epoch"] == 4


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.999])
def test_a_file_cut_short(tmp_path: Path, keep: float) -> None:
    whole = saved(tmp_path / "x.ckpt", {}).read_bytes()
    (tmp_path / "x.ckpt").write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match="cannot be used"):
        load_run(tmp_path / "x.ckpt", "the checkpoint", "use another one")


# --- harmless things that trainers store beside weights --------------------------------------------------------------


def of_module(module: str, name: str) -> bytes:
    """A pickle of a path class that this Python may not have, called with a text."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00a\x85R."


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("name", ["PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath"])
def test_paths_of_any_python_are_read_over(module: str, name: str) -> None:
    read_pickle(of_module(module, name))


@pytest.mark.parametrize(
    "value",
    [
        pathlib.PurePosixPath("a"),
        pathlib.PureWindowsPath("a"),
        types.SimpleNamespace(a=1),
        argparse.Namespace(out=pathlib.PurePosixPath("a"), dtype=torch.float16),
        torch.bfloat16,
        defaultdict(list, {"a": [1]}),
        defaultdict(int, {"a": 1}),
        {(1, 2): 3, "a": 1},
        {2**70: 3},
    ],
    ids=str,
)
def test_harmless_arguments_do_not_keep_a_generator_out(value: object) -> None:
    tree, _ = read_pickle(pickle.dumps({"args": value, "iteration": 7}, 2))
    assert tree["iteration"] == 7


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_show_control_characters_by_their_numbers() -> None:
    error = DataError("file \x1b[2J\udcef", "line\nbreak \x9b31m \u202e", "é is fine")
    assert str(error) == ("file \\x1b[2J\\udcef. Cause: line break \\x9b31m \\u202e. Remedy: é is fine.")
