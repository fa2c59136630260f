"""What the demo's page can ask for: images of a canvas, starts, pictures of visitors, downloads that repeat."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mapper.mappers import THREE
from PIL import Image

from sisug.errors import ConfigError, DataError
from sisug.synthesis.demo.models import KINDS, Kept, shipped_readers
from sisug.synthesis.demo.studio import EXEMPLAR, Studio, Wish
from sisug.synthesis.synthesizer import Synthesizer

SEG = Wish("tiny", "seg", 3)


def canvas(seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 3, (8, 8), np.uint8)
    return np.kron(coarse, np.ones((32, 32), np.uint8)).tobytes()


def lines() -> bytes:
    paper = np.full((256, 256), 255, np.uint8)
    paper[100:106, 30:220] = 0
    return paper.tobytes()


def picture(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def shown(answer: dict[str, object]) -> np.ndarray:
    return picture(base64.b64decode(str(answer["image"]).split(",")[1]))


def photo(seed: int = 0, size: int = 40) -> bytes:
    written = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(written, format="PNG")
    return written.getvalue()


def test_the_image_is_that_of_the_synthesizer(studio: Studio, mapper_file: Path) -> None:
    synthesizer = Synthesizer.load(mapper_file, device="cpu")
    numbers = np.frombuffer(canvas(), np.uint8).reshape(256, 256)
    expected = synthesizer.generate(numbers, [3]).pictures()[0]
    np.testing.assert_array_equal(shown(studio.image(SEG, canvas())), np.asarray(expected))


def test_another_drawing_or_style_gives_another_image(studio: Studio) -> None:
    images = [
        shown(studio.image(wish, drawn)).tobytes()
        for wish, drawn in [
            (SEG, canvas(0)),
            (SEG, canvas(1)),
            (replace(SEG, style=4), canvas(0)),
            (replace(SEG, truncation=0.2), canvas(0)),
            (replace(SEG, mix=9), canvas(0)),
        ]
    ]
    assert len(set(images)) == 5


@pytest.mark.parametrize("drawn", [b"", b"\0" * 100, canvas() + b"\0"])
def test_a_canvas_of_another_size_is_refused(studio: Studio, drawn: bytes) -> None:
    with pytest.raises(DataError, match="256x256"):
        studio.image(SEG, drawn)


def test_a_class_that_does_not_exist_is_refused(studio: Studio) -> None:
    with pytest.raises(DataError, match="values"):
        studio.image(SEG, b"\x07" * 65536)


@pytest.mark.parametrize(
    "wish", [replace(SEG, family="other"), replace(SEG, kind="scribble"), replace(SEG, kind="../x")]
)
def test_what_is_not_offered_is_refused(studio: Studio, wish: Wish) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        studio.image(wish, canvas())


def test_a_model_without_segmenter_says_that_it_has_no_starts(studio: Studio) -> None:
    assert studio.describe("tiny", "seg")["samples"] is False
    with pytest.raises(ConfigError, match="no drawings to start from"):
        studio.sample(SEG)


def test_the_page_is_told_classes_by_name(studio: Studio) -> None:
    told = studio.describe("tiny", "seg")
    assert [label["name"] for label in told["labels"]] == list(THREE.classes)
    assert [tuple(label["color"]) for label in told["labels"]] == list(THREE.palette)


def test_a_drawing_starts_from_a_sample(studio: Studio) -> None:
    wish = replace(SEG, kind="edges")
    gray = np.frombuffer(studio.sample(wish), np.uint8)
    assert gray.size == 65536
    assert gray.max() == 255
    assert gray.min() < 100
    assert shown(studio.image(wish, gray.tobytes())).shape == (16, 16, 3)


def test_a_mask_that_is_uploaded_lies_on_the_canvas(studio: Studio) -> None:
    numbers = np.frombuffer(canvas(), np.uint8).reshape(256, 256)
    written = BytesIO()
    Image.fromarray(np.array(THREE.palette, np.uint8)[numbers]).save(written, format="PNG")
    assert studio.upload_drawing(SEG, written.getvalue()) == canvas()
    with pytest.raises(DataError, match="photo"):
        studio.upload_drawing(SEG, photo())


def test_a_line_drawing_that_is_uploaded_lies_on_the_canvas(studio: Studio) -> None:
    written = BytesIO()
    Image.fromarray(np.frombuffer(lines(), np.uint8).reshape(256, 256)).save(written, format="PNG")
    assert studio.upload_drawing(replace(SEG, kind="edges"), written.getvalue()) == lines()


def test_a_photo_gives_lines_to_start_from(studio: Studio) -> None:
    assert len(studio.upload_photo(replace(SEG, kind="edges"), photo())) == 65536


def test_pictures_of_visitors_are_found_only_by_their_names(studio: Studio) -> None:
    one, other = studio.upload_picture(SEG, photo(1)), studio.upload_picture(SEG, photo(2))
    assert one["name"] != other["name"]
    assert len(one["name"]) == 22
    images = [shown(studio.image(replace(SEG, style=name), canvas())) for name in (one["name"], other["name"])]
    assert (images[0] != images[1]).any()
    with pytest.raises(DataError, match="gone"):
        studio.image(replace(SEG, style="A" * 22), canvas())


def _again(files: dict[str, bytes], folder: Path, sisug: Callable[..., int], mapper: Path) -> None:
    """Run the record's command beside a download's files; the image must come out with the same bytes."""
    record = json.loads(files["generate.json"])
    name, image = next(iter(files.items()))
    for other, content in files.items():
        if other != name:
            (folder / other).write_bytes(content)
    for suffix in (".safetensors", ".json"):
        shutil.copy(mapper.with_suffix(suffix), folder)
    words = shlex.split(record["command"])
    assert words[:2] == ["sisug", "generate"]
    assert sisug(*words[1:]) == 0
    assert (folder / "again" / name).read_bytes() == image
    told = json.loads((folder / "again" / "generate.json").read_text())
    told["mapper"]["file"], told["generator"]["source"] = record["mapper"]["file"], record["generator"]["source"]
    told["files"] = told["files"][:1]
    told["command"], told["warnings"] = record["command"], record["warnings"]
    assert told == record


@pytest.mark.parametrize("wish", [SEG, replace(SEG, mix=5, truncation=0.45), Wish("tiny", EXEMPLAR, 2, like=7)])
def test_the_command_of_a_download_gives_the_same_bytes(
    studio: Studio, wish: Wish, sisug: Callable[..., int], tmp_path: Path, mapper_file: Path
) -> None:
    files = studio.download(wish, canvas())
    np.testing.assert_array_equal(picture(next(iter(files.values()))), shown(studio.image(wish, canvas())))
    _again(files, tmp_path, sisug, mapper_file)


def test_a_line_drawing_is_downloaded_as_it_is_read(
    studio: Studio, sisug: Callable[..., int], tmp_path: Path, edges_file: Path
) -> None:
    _again(studio.download(replace(SEG, kind="edges"), lines()), tmp_path, sisug, edges_file)


def test_styles_and_layouts_of_pictures_are_made_again_too(
    studio: Studio, sisug: Callable[..., int], tmp_path: Path, mapper_file: Path
) -> None:
    name = studio.upload_picture(SEG, photo(3))["name"]
    for number, wish in enumerate([replace(SEG, style=name), Wish("tiny", EXEMPLAR, 2, like=name)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            _again(studio.download(wish, canvas()), folder, sisug, mapper_file)


def test_a_download_names_no_folder_of_the_machine(studio: Studio, mapper_file: Path) -> None:
    text = studio.download(SEG, canvas())["generate.json"].decode()
    assert str(mapper_file.parent) not in text
    assert "/tmp" not in text


def test_what_was_used_longest_ago_is_forgotten() -> None:
    kept: Kept[int, int] = Kept(2)
    for number in (1, 2, 1, 3):
        kept.find(number, lambda number=number: 10 * number)  # type: ignore[misc]
    assert (kept.get(1), kept.get(2), kept.get(3), len(kept)) == (10, None, 30, 2)


def test_all_mappers_that_ship_and_can_be_drawn_for_are_offered() -> None:
    families = {reader.family for reader in shipped_readers()}
    assert "avatars" in families
    assert {reader.kind for reader in shipped_readers() if reader.family == "avatars"} == set(KINDS)
