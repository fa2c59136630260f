"""Held-out images: what is read, in what order, how it is known again, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data.masks.trees import celebamask, image, mask, save
from evaluation.pieces import write_data
from PIL import Image

from sisug.data.avatars import AvatarsDataset
from sisug.errors import ConfigError, DataError, SisugError
from sisug.evaluation.held_out import FolderHeldOut, HeldOut, open_held_out
from sisug.labels.label_sets import AVATARS, label_set


def read(data: HeldOut, first: int, last: int, size: int = 3) -> tuple[torch.Tensor, torch.Tensor | None]:
    batches = list(data.batches(first, last, size))
    masks = [batch.masks for batch in batches if batch.masks is not None]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(first, last))
    return torch.cat([batch.images for batch in batches]), torch.cat(masks) if masks else None


def test_avatars_are_those_of_their_split() -> None:
    data = open_held_out("avatars", "test", 16)
    images, masks = read(data, 2, 6)
    drawn = AvatarsDataset("test", 10, 16)
    assert masks is not None
    for place in range(4):
        assert torch.equal(images[place], drawn[place + 2]["image"])
        assert torch.equal(masks[place], drawn[place + 2]["mask"])
    other = open_held_out("avatars", "val", 16)
    assert not torch.equal(read(other, 2, 6)[0], images)
    prints = {each.fingerprint(first, 4) for each in (data, other) for first in (0, 1)}
    assert len(prints) == 4
    assert data.labels == AVATARS
    with pytest.raises(ConfigError, match="train, val, test"):
        open_held_out("avatars", "dev", 16)
    with pytest.raises(ConfigError, match="drawn with their own"):
        open_held_out("avatars", "test", 16, "ade20k")


def test_a_folder_gives_the_images_of_its_split_whatever_the_batches(tmp_path: Path) -> None:
    data = open_held_out(str(write_data(tmp_path, 12)), "test", 8)
    assert isinstance(data, FolderHeldOut)
    assert sorted(data.names) == [f"{number:03d}" for number in range(6, 12)]
    assert list(data.names) != sorted(data.names)  # the first so many are a sample, not one subfolder
    images, masks = read(data, 0, 6)
    assert masks is not None
    for place, name in enumerate(data.names):
        with Image.open(tmp_path / "images" / f"{name}.png") as picture:
            expected = np.array(picture.resize((8, 8), Image.Resampling.LANCZOS))
        assert torch.equal(((images[place] + 1) * 127.5).round().byte(), torch.from_numpy(expected).permute(2, 0, 1))
        # Nearest neighbour to half the size: one pixel of each square of four.
        whole = torch.from_numpy(mask(int(name), 16, AVATARS.num_classes)).long()
        assert any(torch.equal(masks[place], whole[row::2, column::2]) for row in (0, 1) for column in (0, 1))
    again, _ = read(data, 0, 6, size=6)
    assert torch.equal(again, images)
    assert torch.equal(read(data, 4, 6)[0], images[4:])


def test_a_fingerprint_follows_the_content(tmp_path: Path) -> None:
    folder = write_data(tmp_path, 8)
    before = open_held_out(str(folder), "all", 8)
    same = open_held_out(str(folder), "all", 8)
    assert before.fingerprint(0, 8) == same.fingerprint(0, 8)
    assert before.fingerprint(0, 8) != before.fingerprint(0, 7)
    changed = folder / "images" / "003.png"
    content = image(99)
    save(changed, content)
    assert open_held_out(str(folder), "all", 8).fingerprint(0, 8) != before.fingerprint(0, 8)
    save(changed, image(3))
    assert open_held_out(str(folder), "all", 8).fingerprint(0, 8) == before.fingerprint(0, 8)
    save(folder / "masks" / "003.png", mask(50, 16, AVATARS.num_classes))
    assert open_held_out(str(folder), "all", 8).fingerprint(0, 8) != before.fingerprint(0, 8)
    assert str(tmp_path) not in str(before.record(0, 8))


def test_images_alone_and_celebamask_as_published(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / "photos" / "a" / f"{number}.png", image(number))
    data = open_held_out(str(tmp_path / "photos"), "all", 8)
    assert (len(data), data.labels) == (5, None)
    assert read(data, 0, 5)[1] is None
    with pytest.raises(ConfigError, match="without masks"):
        open_held_out(str(tmp_path / "photos"), "all", 8, "avatars")
    celebamask(tmp_path / "CelebAMask-HQ", [0, 5, 1999, 2000, 29000])
    faces = open_held_out(str(tmp_path / "CelebAMask-HQ"), "first-2000", 16)
    assert len(faces) == 3
    assert faces.labels == label_set("celebamask-hq")
    merged = open_held_out(str(tmp_path), "last-2000", 16, "celebamask-hq-15")
    assert merged.labels == label_set("celebamask-hq-15")
    assert read(merged, 0, 1)[0].shape == (1, 3, 16, 16)


def test_a_list_of_names_from_anywhere(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", 6)
    chosen = tmp_path / "mine.txt"
    chosen.write_text("002\n004\n")
    data = open_held_out(str(folder), str(chosen), 8)
    assert isinstance(data, FolderHeldOut)
    assert sorted(data.names) == ["002", "004"]
    chosen.write_text("002\n009\n")
    with pytest.raises(DataError, match=r"1 names of split .*: 009"):
        open_held_out(str(folder), str(chosen), 8)
    chosen.write_text("002\n002\n")
    with pytest.raises(DataError, match="002 more than once"):
        open_held_out(str(folder), str(chosen), 8)


def test_what_cannot_be_measured_is_refused_at_once(tmp_path: Path) -> None:
    folder = write_data(tmp_path, 4)
    with pytest.raises(ConfigError, match="it has all, test"):
        open_held_out(str(folder), "dev", 8)
    with pytest.raises(DataError, match=r"3 images of .*it has 2"):
        open_held_out(str(folder), "test", 8).check(3)
    with pytest.raises(DataError, match="a whole image of at least 32x32"):
        open_held_out(str(folder), "all", 32).check(2)
    (folder / "masks" / "001.png").unlink()
    with pytest.raises(DataError, match=r"1 images without a mask: images/001\.png"):
        open_held_out(str(folder), "test", 8)
    with pytest.raises(DataError, match="does not exist"):
        open_held_out(str(tmp_path / "nowhere"), "test", 8)


def test_labels_outside_the_set_give_no_number(tmp_path: Path) -> None:
    folder = write_data(tmp_path, 4)
    save(folder / "masks" / "002.png", np.full((16, 16), 77, np.uint8))
    data = open_held_out(str(folder), "all", 8)
    with pytest.raises(SisugError, match="77"):
        read(data, 0, 4)
