"""Drawings and styles that never were files: the images are those of the same pixels in a file."""

from __future__ import annotations

import builtins
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mapper.mappers import THREE, random_mapper
from PIL import Image
from synthesis.drawings import draw, mask

from sisug.conditions.condition import Condition
from sisug.conditions.seg import Seg
from sisug.errors import DataError
from sisug.labels.label_sets import AVATARS
from sisug.labels.pictures import picture_of
from sisug.synthesis import Synthesizer
from sisug.synthesis.layouts import encode

PALETTE = np.array(THREE.palette, np.uint8)


def rgba(numbers: np.ndarray, opacity: int = 255) -> np.ndarray:
    return np.dstack([PALETTE[numbers], np.full(numbers.shape, opacity, np.uint8)])


def indexed(numbers: np.ndarray) -> Image.Image:
    """A palette picture whose colors are in another order than the classes."""
    turned = Image.fromarray((2 - numbers).astype(np.uint8), "P")
    turned.putpalette([value for color in THREE.palette[::-1] for value in color])
    return turned


def drawings(numbers: np.ndarray) -> dict[str, Any]:
    """The same drawing in every form that a program may hold it in."""
    return {
        "RGB array": PALETTE[numbers],
        "RGBA array": rgba(numbers),
        "array with its rows apart": np.repeat(PALETTE[numbers], 2, axis=1)[:, ::2],
        "RGB tensor": torch.from_numpy(PALETTE[numbers]),
        "RGB picture": Image.fromarray(PALETTE[numbers]),
        "RGBA picture": Image.fromarray(rgba(numbers)),
        "gray picture": Image.fromarray(numbers.astype(np.uint8)),
        "palette picture": indexed(numbers),
        "class numbers": numbers,
        "bytes of class numbers": numbers.astype(np.uint8),
    }


def test_every_form_of_a_drawing_gives_the_images_of_its_file(synthesizer: Synthesizer, tmp_path: Path) -> None:
    numbers = mask(4)
    expected = synthesizer.generate(draw(tmp_path / "a.png", numbers), [0, 3])
    forms = drawings(numbers)
    result = synthesizer.generate(list(forms.values()), [0, 3])
    for form, images, shown in zip(forms, result.images, result.shown, strict=True):
        torch.testing.assert_close(
            images, expected.images[0], rtol=0, atol=1e-5, msg=lambda text, form=form: form + text
        )
        assert torch.equal(shown, expected.shown[0]), form
    assert result.names == tuple(f"input{place}" for place in range(len(forms)))


@pytest.mark.parametrize("form", ["RGB array", "palette picture", "class numbers"])
def test_one_alone_is_no_list(synthesizer: Synthesizer, form: str) -> None:
    assert synthesizer.generate(drawings(mask())[form], [0]).images.shape == (1, 1, 3, 16, 16)


def test_transparent_pixels_are_dont_care(synthesizer: Synthesizer) -> None:
    pixels = rgba(mask())
    pixels[:8] = 0
    numbers = mask()
    numbers[:8] = THREE.ignore
    assert torch.equal(synthesizer.layout(pixels).mask, synthesizer.layout(numbers).mask)


def test_a_turned_photo_is_upright(synthesizer: Synthesizer, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    buffer = io.BytesIO()
    Image.fromarray(PALETTE[mask()[::-1, ::-1]]).save(buffer, "PNG", exif=exif)
    assert torch.equal(synthesizer.layout(Image.open(buffer)).mask, synthesizer.layout(mask()).mask)


def test_a_stroke_of_a_scribble_survives_downsizing(tiny_generator_file: Path) -> None:
    trained = random_mapper(tiny_generator_file, "scribble")
    numbers = np.full((64, 64), THREE.ignore)
    numbers[33] = 1  # one pixel of four
    for drawing in (numbers, Image.fromarray(numbers.astype(np.uint8))):
        encoded, _, _ = encode(drawing, trained.condition, 16)
        assert bool(encoded[0, 1, 8].all())


def test_levels_of_gray_are_lines_where_the_mapper_reads_lines(edges_file: Path) -> None:
    synthesizer = Synthesizer.load(edges_file, device="cpu")
    levels = np.full((32, 32), 255, np.uint8)
    levels[10:12] = 0
    expected = synthesizer.layout(levels).mask
    assert torch.equal(synthesizer.layout(np.repeat(levels[..., None], 3, 2)).mask, expected)
    assert torch.equal(synthesizer.layout(Image.fromarray(levels)).mask, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((16, 16, 2), np.uint8), r"uint8 and shape \(16, 16, 2\).*RGB|colors are bytes"),
        (np.zeros((16, 16, 3), np.int64), r"int64 and shape \(16, 16, 3\)"),
        (np.zeros((20, 16, 3), np.uint8), "input0 has 16x20 pixels"),
        (np.zeros((0, 0, 3), np.uint8), r"shape \(0, 0, 3\)"),
        (np.full((16, 16, 3), 9, np.uint8), "input0 has 256 pixels in 1 colour .*#090909"),
        (rgba(mask(), 128), "input0 has 256 half-transparent pixels"),
        (rgba(mask(), 0), "input0 has no labelled pixel"),
        (Image.new("CMYK", (16, 16)), "input0 has the colour model CMYK"),
        (Image.new("RGB", (16, 20)), "input0 has 16x20 pixels"),
    ],
)
def test_what_cannot_be_a_drawing(synthesizer: Synthesizer, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesizer.generate(given, [0])


def test_pictures_in_memory_have_records(synthesizer: Synthesizer) -> None:
    import hashlib

    pixels = PALETTE[mask()]
    (record,) = synthesizer.generate(pixels, [0]).record["inputs"]
    expected = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert record == {"name": "input0", "picture": [16, 16, "RGB"], "sha256": expected}


def test_a_picture_is_left_as_it_is() -> None:
    image = Image.fromarray(PALETTE[mask()])
    before = image.tobytes()
    picture = picture_of(image, "it")
    picture.image.putpixel((0, 0), (9, 9, 9))
    assert image.tobytes() == before


@pytest.mark.parametrize("form", ["array", "picture", "file"])
def test_a_style_from_a_picture_in_memory(
    synthesizer: Synthesizer, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisug.synthesis.inversion.CANDIDATES", 16)
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 3)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    given = {"array": pixels, "picture": Image.fromarray(pixels), "file": tmp_path / "photo.png"}[form]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    styles, expected = synthesizer.styles(style_from=given), synthesizer.styles(style_from=tensor)
    assert torch.equal(styles.source.ws, expected.source.ws)
    assert styles.captions == ("photo" if form == "file" else "picture",)
    with pytest.raises(DataError, match="too small: 8x8"):
        synthesizer.styles(style_from=pixels[:8, :8])


# --- a live canvas -------------------------------------------------------------------------------------------------


def test_a_stroke_with_styles_at_hand_reads_no_file_and_computes_no_style(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    styles = synthesizer.styles([5, 2])
    expected = synthesizer.generate([PALETTE[mask()], PALETTE[mask(1)]], [5, 2]).images

    def refuse(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"not for a stroke: {arguments}")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(synthesizer.generator, "map", refuse)
    monkeypatch.setattr(synthesizer.generator, "features", refuse)
    for place in range(2):
        result = synthesizer.generate(PALETTE[mask(place)], styles)
        torch.testing.assert_close(result.images[0], expected[place], rtol=0, atol=1e-5)
        assert result.styles == ("seed5", "seed2")
        first = np.asarray(result.pictures()[0])
        assert np.array_equal(first, ((result.images[0, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_stream_is_what_is_generated(synthesizer: Synthesizer, batch_size: int) -> None:
    styles = synthesizer.styles([4, 1])
    layouts = [synthesizer.layout(mask(seed), seed) for seed in range(3)]
    streamed = list(synthesizer.stream(layouts, styles, batch_size))
    whole = synthesizer.generate([mask(seed) for seed in range(3)], styles)
    pairs = [(layout.name, caption) for layout, caption, _ in streamed]
    assert pairs == [(name, style) for name in whole.names for style in whole.styles]
    images = torch.stack([image for _, _, image in streamed])
    torch.testing.assert_close(images, whole.images.flatten(0, 1), rtol=0, atol=1e-5)


def test_the_stream_computes_a_batch_when_it_is_asked_for(synthesizer: Synthesizer) -> None:
    calls: list[int] = []
    synthesizer.rearranger.network.register_forward_hook(lambda *_: calls.append(1))
    stream = synthesizer.stream([synthesizer.layout(mask())], synthesizer.styles(range(6)), 2)
    assert not calls
    for count in (1, 1, 2, 2, 3, 3):
        next(stream)
        assert len(calls) == count
    assert next(stream, None) is None


# --- what is said --------------------------------------------------------------------------------------------------


def test_warnings_are_data_and_are_logged(
    synthesizer: Synthesizer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisug.synthesis.inversion.CANDIDATES", 16)
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 1)
    noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    foreign = Image.fromarray(mask().astype(np.uint8), "P")
    foreign.putpalette([value for number in range(256) for value in (number, 9, 7)])
    one_class = np.full((16, 16), 1)
    styles = synthesizer.styles(style_from=noise)
    result = synthesizer.generate([foreign, one_class, mask()], styles)
    first, second, third = result.warnings
    assert first.startswith("input0: its palette is not that of label set 'three'")
    assert second == "input1: right is the only class in it"
    assert third.startswith("picture: inverted at ")
    assert "expect little of it" in third
    assert result.record["warnings"] == list(result.warnings)
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sorted(logged) == sorted(result.warnings)
    assert synthesizer.generate(mask(), [0]).warnings == ()


def test_results_are_short_in_print(synthesizer: Synthesizer) -> None:
    result = synthesizer.generate([mask(seed) for seed in range(5)], [0, 7])
    assert repr(result) == "GeneratedImages(10 of 16x16: input0, input1, input2 and 2 more in seed0, seed7)"
    assert repr(synthesizer.styles([0, 7])) == "StyleSamples(seed0, seed7)"
    assert repr(synthesizer.layout(mask())) == "Layout('input0', 8x8)"
    assert repr(synthesizer.generate(np.ones((16, 16), int), [0])).endswith("seed0, 1 warnings)")


def test_a_condition_of_ones_own_reads_files_and_pictures_by_one_method(tmp_path: Path) -> None:
    class Brightness(Condition):
        name = "brightness"

        def extract(self, images: Any, masks: Any, random: Any) -> Any:
            return images.mean(dim=1, keepdim=True) / 2 + 0.5

        def from_picture(self, picture: Any, size: int) -> Any:
            gray = picture.image.convert("L").resize((size, size))
            return torch.from_numpy(np.array(gray))[None].float() / 255

    image = Image.fromarray(PALETTE[mask()])
    image.save(tmp_path / "a.png")
    kind = Brightness(AVATARS)
    assert torch.equal(kind.load(tmp_path / "a.png", 16), kind.from_picture(picture_of(image, "a"), 16))
    encoded, _, warnings = encode(np.asarray(image), kind, 16)
    assert torch.equal(encoded[0], kind.load(tmp_path / "a.png", 16))
    assert warnings == []
    assert isinstance(Seg(THREE), Condition)
