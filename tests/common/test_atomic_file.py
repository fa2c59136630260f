"""Files that are whole or not there, checkpoints among them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from sisug.common.atomic_file import atomic_write, disk_is_full
from sisug.errors import RunError
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
    with pytest.raises(RunError, match="free some space"), atomic_write(tmp_path / "file"):
        raise OSError(number, "full")
    assert not list(tmp_path.iterdir())


def test_full_disk_is_found_behind_another_error() -> None:
    # torch.save turns the writer's OSError into a RuntimeError.
    outer = RuntimeError("unexpected pos")
    outer.__context__ = OSError(errno.ENOSPC, "full")
    assert disk_is_full(outer)
    assert not disk_is_full(OSError(errno.EACCES, "no"))
    assert not disk_is_full(None)


def test_checkpoint_is_what_torch_reads(tmp_path: Path) -> None:
    state = {"state_dict": {"weight": torch.randn(3)}, "epoch": 2}
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(state, tmp_path / "checkpoints" / "last.ckpt")
    loaded = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(loaded, state)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_checkpoint_on_a_really_full_disk(tmp_path: Path) -> None:
    writer = AtomicCheckpointIO()
    path = tmp_path / "last.ckpt"
    writer.save_checkpoint({"epoch": 1}, path)
    (tmp_path / "last.ckpt.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match="disk is full"):
        writer.save_checkpoint({"state": torch.zeros(10_000)}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "x", storage_options={})
