"""Files that are whole or not there, checkpoints among them."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sisug.common.atomic_file import atomic_write, disk_is_full, temporary_beside
from sisug.errors import DiskFullError
from sisug.training.checkpoint_io import AtomicCheckpointIO


def test_content_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit()])
def test_earlier_file_survives_whatever_happens(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_has_a_remedy(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFullError, match="free some space"), atomic_write(tmp_path / "file"):
        raise OSError(number, "full")
    assert not list(tmp_path.iterdir())


def test_full_disk_is_found_behind_another_error() -> None:
    # torch.save turns the writer's OSError into a RuntimeError.
    outer = RuntimeError("unexpected pos")
    outer.__context__ = OSError(errno.ENOSPC, "full")
    assert disk_is_full(outer)
    assert not disk_is_full(OSError(errno.EACCES, "no"))
    assert not disk_is_full(None)
    inner = ValueError("raised from the outer one")
    outer.__context__, inner.__context__ = inner, outer
    assert not disk_is_full(outer)  # errors that are raised again make circles


def test_checkpoint_is_what_torch_reads(tmp_path: Path) -> None:
    state = {"state_dict": {"weight": torch.randn(3)}, "epoch": 2}
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(state, tmp_path / "checkpoints" / "last.ckpt")
    loaded = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(loaded, state)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_checkpoint_on_a_really_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AtomicCheckpointIO()
    path = tmp_path / "last.ckpt"
    writer.save_checkpoint({"epoch": 1}, path)
    opened = Path.open

    def on_full_device(self: Path, mode: str = "r", *rest: Any) -> Any:
        if mode == "xb":
            self.symlink_to("/dev/full")
            return opened(self, "wb")
        return opened(self, mode, *rest)

    monkeypatch.setattr(Path, "open", on_full_device)
    with pytest.raises(DiskFullError, match="disk is full"):
        writer.save_checkpoint({"state": torch.zeros(10_000)}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_names_as_long_as_the_file_system_takes_them(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + "12345")
    with atomic_write(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    code = (
        "import os, sys; from pathlib import Path; from sisug.common.atomic_file import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    running, other = temporary_beside(path), tmp_path / "last.ckpt.1-2.tmp"
    running.touch()  # of this process, which lives
    other.touch()  # somebody's own file
    with atomic_write(path) as file:
        file.write(b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, running, other])


def test_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "x", storage_options={})
