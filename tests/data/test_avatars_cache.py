"""The avatars cache: equal to what is drawn, rebuilt when damaged, whole or absent when interrupted."""

from __future__ import annotations

import errno
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sisug.data.avatars import cache
from sisug.data.avatars.cache import IMAGES, MASKS, MaterialisedAvatars
from sisug.data.avatars.dataset import AvatarsDataset
from sisug.data.memmap_cache import allocate
from sisug.errors import RunError


def small(folder: Path, length: int = 6) -> MaterialisedAvatars:
    return MaterialisedAvatars("val", length, 16, folder)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in (folder / "avatars").iterdir() if path.name.startswith(".")]


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(cache, "draw_range", refuse)


def assert_sound(dataset: MaterialisedAvatars) -> None:
    drawn = AvatarsDataset("val", len(dataset), 16)
    for index in range(len(dataset)):
        assert torch.equal(dataset[index]["image"], drawn[index]["image"])
        assert torch.equal(dataset[index]["mask"], drawn[index]["mask"])
        assert dataset[index]["index"] == index


def test_holds_what_is_drawn_and_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_sound(small(tmp_path))
    forbid_drawing(monkeypatch)
    assert_sound(small(tmp_path))
    assert leftovers(tmp_path) == []


def test_everything_that_decides_the_content_has_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {small(tmp_path).folder, small(tmp_path, 7).folder}
    folders.add(MaterialisedAvatars("test", 6, 16, tmp_path).folder)
    folders.add(MaterialisedAvatars("val", 6, 17, tmp_path).folder)
    monkeypatch.setattr(cache, "style_version", lambda: "drawing-999")
    folders.add(small(tmp_path).folder)
    assert len(folders) == 5


def truncate(folder: Path) -> None:
    with (folder / IMAGES).open("rb+") as file:
        file.truncate((folder / IMAGES).stat().st_size - 1)


def lose_masks(folder: Path) -> None:
    (folder / MASKS).unlink()


def empty(folder: Path) -> None:
    (folder / MASKS).write_bytes(b"")


def zero_the_end(folder: Path) -> None:  # what a power cut leaves of a file whose length is already on disk
    array = np.load(folder / IMAGES, mmap_mode="r+")
    array[3:] = 0
    array.flush()


def other_shape(folder: Path) -> None:
    np.save(folder / MASKS, np.zeros((6, 8, 8), dtype=np.uint8))


def other_type(folder: Path) -> None:
    np.save(folder / MASKS, np.zeros((6, 16, 16), dtype=np.int64))


@pytest.mark.parametrize("damage", [truncate, lose_masks, empty, zero_the_end, other_shape, other_type])
def test_damaged_caches_are_drawn_again(damage: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(small(tmp_path).folder)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert_sound(small(tmp_path))
    assert "drawn again" in caplog.text
    assert leftovers(tmp_path) == []


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, source: AvatarsDataset, start: int, stop: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "draw_range", interrupt)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path)
    assert leftovers(tmp_path) == []
    assert_sound(small(tmp_path))


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    name = small(tmp_path).folder.name
    abandoned = tmp_path / "avatars" / f".{name}.0123abcd"
    abandoned.mkdir()
    (abandoned / IMAGES).write_bytes(b"half")
    lose_masks(tmp_path / "avatars" / name)
    assert_sound(small(tmp_path))
    assert leftovers(tmp_path) == []


def test_full_disk_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, shape: tuple[int, ...]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "allocate", fail)
    with pytest.raises(RunError, match=r"No space left.*SISUG_CACHE"):
        small(tmp_path)
    assert leftovers(tmp_path) == []


def test_space_is_taken_before_drawing(tmp_path: Path) -> None:
    # A sparse file would let the drawing run into a full disk as a bus error.
    allocate(tmp_path / IMAGES, (20, 3, 64, 64))
    assert (tmp_path / IMAGES).stat().st_blocks * 512 >= 20 * 3 * 64 * 64
    assert np.load(tmp_path / IMAGES, mmap_mode="r").shape == (20, 3, 64, 64)


def test_unwritable_folder_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match=r"Not a directory.*SISUG_CACHE"):
        small(tmp_path / "file")


def test_concurrent_builders_draw_once_and_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    draw_range = cache.draw_range

    def counted(folder: Path, source: AvatarsDataset, start: int, stop: int) -> None:
        calls.append(start)
        draw_range(folder, source, start, stop)

    monkeypatch.setattr(cache, "draw_range", counted)
    built: list[MaterialisedAvatars] = []
    threads = [threading.Thread(target=lambda: built.append(small(tmp_path, 20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert calls == [0]
    for dataset in built:
        assert_sound(dataset)


@pytest.mark.slow
def test_concurrent_processes_agree(tmp_path: Path) -> None:
    code = f"from sisug.data.avatars import MaterialisedAvatars as M; print(len(M('val', 300, 16, {str(tmp_path)!r})))"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    assert [run.communicate()[0].strip() for run in runs] == [b"300"] * 3
    assert [run.returncode for run in runs] == [0] * 3
    assert_sound(small(tmp_path, 300))


def test_several_processes_draw_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL", 2)
    assert_sound(MaterialisedAvatars("val", 9, 16, tmp_path, num_processes=2))


def test_failing_drawing_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL", 2)
    monkeypatch.setattr(cache.sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"code 1.*num_processes=1"):
        MaterialisedAvatars("val", 9, 16, tmp_path, num_processes=2)
    assert leftovers(tmp_path) == []


def test_data_workers_get_a_path_not_the_arrays(tmp_path: Path) -> None:
    dataset = small(tmp_path, 40)
    content = pickle.dumps(dataset)
    assert len(content) < 2000 < 40 * 4 * 16 * 16
    assert_sound(pickle.loads(content))
    spawned = DataLoader(dataset, batch_size=20, num_workers=1)
    assert sum(len(batch["image"]) for batch in spawned) == 40


def test_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    assert MaterialisedAvatars("val", 2, 16).folder.is_relative_to(tmp_path)


def test_indices_outside_are_refused(tmp_path: Path) -> None:
    dataset = small(tmp_path)
    for index in (-1, 6):
        with pytest.raises(IndexError):
            dataset[index]
