"""The synthesizer: the same styles in any company, layouts from everything that users give, records that repeat."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mapper.mappers import THREE
from PIL import Image
from synthesis.drawings import draw, mask

import sisug
from sisug.conditions.seg import Seg
from sisug.errors import CheckpointError, ConfigError, DataError, FingerprintMismatch
from sisug.generators import Generator
from sisug.generators.native import write_native
from sisug.synthesis import Synthesizer
from sisug.synthesis.inversion import Inversion
from sisug.synthesis.layouts import Layout, distinct

MASKS = [mask(seed) for seed in range(3)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_package_offers_it() -> None:
    assert sisug.Synthesizer is Synthesizer
    with pytest.raises(AttributeError, match="no attribute 'Painter'"):
        _ = sisug.Painter


def test_three_lines(mapper_file: Path, tmp_path: Path) -> None:
    s = sisug.Synthesizer.load(str(mapper_file))
    images = s.generate(mask(), styles=range(8))
    images.save_grid(str(tmp_path / "out.png"))
    assert images.images.shape == (1, 8, 3, 16, 16)
    assert float(images.images.abs().max()) <= 1
    assert len(images) == 8
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.width > 9 * 192
        assert sheet.height > 192


def test_it_is_what_the_pieces_give(synthesizer: Synthesizer) -> None:
    result = synthesizer.generate(MASKS, synthesizer.styles([4, 7], truncation=0.5))
    assert synthesizer.mapper is not None
    trained = synthesizer.rearranger
    ws = synthesizer.styles([7], truncation=0.5).source.ws
    features = trained.generator.features(ws)
    target = synthesizer.mapper.layouts(Seg(THREE).from_mask(torch.from_numpy(MASKS[2]))[None])
    laid_out = trained.network(features, trained.codebook.assign(features.map), target, ws)
    close(result.images[2, 1], trained.generator.render(laid_out, ws)[0].clamp(-1, 1))
    assert result.names == ("input0", "input1", "input2")
    assert result.styles == ("seed4", "seed7")


def test_truncation_pulls_to_the_mean(synthesizer: Synthesizer) -> None:
    mean = synthesizer.generator.map(torch.zeros(1, synthesizer.generator.z_dim), 0.0)
    half, full = (synthesizer.styles([3], truncation=t).source.ws for t in (0.5, 1.0))
    close(half, (mean + full) / 2)
    a, b = synthesizer.generate(mask(), synthesizer.styles([1, 2], truncation=0)).images[0]
    close(a, b)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batch_size_changes_nothing(synthesizer: Synthesizer, batch_size: int) -> None:
    close(
        synthesizer.generate(MASKS, range(5), batch_size=batch_size).images,
        synthesizer.generate(MASKS, range(5)).images,
    )


def test_a_seed_is_one_look_in_any_company(synthesizer: Synthesizer) -> None:
    together = synthesizer.generate(MASKS, [9, 2, 5]).images
    close(synthesizer.generate(MASKS[1], [5]).images[0, 0], together[1, 2])
    differences = (together[0, :, None] - together[0, None]).abs().mean(dim=(2, 3, 4))
    assert float(differences[~torch.eye(3, dtype=torch.bool)].min()) > 0.01


def test_the_global_random_state_is_left_alone(synthesizer: Synthesizer) -> None:
    torch.manual_seed(1)
    first = synthesizer.generate(mask(), [0]).images
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, synthesizer.generate(mask(), [0]).images)
    assert torch.equal(before, torch.get_rng_state())


def test_results_are_plain_tensors(synthesizer: Synthesizer) -> None:
    images = synthesizer.generate(mask(), [0]).images
    assert not images.is_inference()
    (images * torch.ones(1, requires_grad=True)).sum().backward()  # type: ignore[no-untyped-call]


# --- what users give -----------------------------------------------------------------------------------------------


def test_files_masks_and_encoded_conditions_agree(synthesizer: Synthesizer, tmp_path: Path) -> None:
    numbers = mask()
    read_only = numbers.copy()
    read_only.setflags(write=False)
    given: list[Any] = [
        draw(tmp_path / "face.png", numbers),
        str(tmp_path / "face.png"),
        read_only,
        numbers.astype(np.uint8),
        torch.from_numpy(numbers),
        Seg(THREE).from_mask(torch.from_numpy(numbers)),
    ]
    result = synthesizer.generate(given, [0])
    for i, image in enumerate(result.images):
        close(image, result.images[0])
        assert torch.equal(result.shown[i], THREE.colorize(torch.from_numpy(numbers)))
    assert result.names == ("face-png", "face-png-2", "input2", "input3", "input4", "input5")


@pytest.mark.parametrize("size", [8, 32, 48])
def test_masks_of_other_sizes_are_brought_to_size(synthesizer: Synthesizer, size: int, tmp_path: Path) -> None:
    # Blocks of 4 pixels at 16: nearest neighbours lose nothing at any of these sizes.
    right, other = synthesizer.generate([mask(size=16), mask(size=size)], [0]).images
    close(right, other)
    file = synthesizer.generate(draw(tmp_path / "a.png", mask(size=size)), [0]).images[0]
    close(right, file)


def test_dont_care_pixels_are_taken(synthesizer: Synthesizer) -> None:
    numbers = mask()
    numbers[:8] = THREE.ignore
    shown = synthesizer.generate(numbers, [0]).shown
    assert shown[0, :, 0, 0].tolist() == [255, 0, 255]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((16, 20), np.int64), "20x16 pixels"),
        (np.zeros((2, 16, 16), np.int64), "as a list"),
        (np.full((16, 16), 7), r"values \[7\].*classes 0 to 2"),
        (np.full((16, 16), 255), "no labelled pixel"),
        (np.zeros((0, 0), np.int64), "0x0 pixels"),
        (np.array([["a"]]), "array of type"),
        (np.zeros((16, 16)), r"encoded condition of shape \(16, 16\).*integers"),
        (torch.zeros(3, 8, 8), r"\(3, 16, 16\)"),
        (torch.full((3, 16, 16), 2.0), "from 2 to 2"),
        (torch.full((3, 16, 16), torch.nan), "from nan to nan"),
        ("none.png", "none.png is not a file"),
        (".", "is a folder"),
    ],
)
def test_what_cannot_be_a_drawing(synthesizer: Synthesizer, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesizer.generate(given, [0])


def test_a_mask_for_a_mapper_of_edges(edges_file: Path) -> None:
    synthesizer = Synthesizer.load(edges_file)
    with pytest.raises(DataError, match=r"'edges'.*reads no classes"):
        synthesizer.generate(mask(), [0])
    assert synthesizer.generate(torch.rand(1, 16, 16), [0]).images.shape == (1, 1, 3, 16, 16)


def test_names_make_different_files() -> None:
    def layout(name: str, file: str | None) -> Layout:
        record = {} if file is None else {"file": file}
        return Layout(name, torch.zeros(8, 8, dtype=torch.int64), torch.zeros(3, 16, 16, dtype=torch.uint8), record)

    given = [layout("a", "a.png"), layout("A", "A.jpg"), layout("b", "x/b.png"), layout("b", "y/b.png")]
    given += [layout("c", "c.png"), layout("input0", None), layout("input0", None)]
    names = [each.name for each in distinct(given)]
    assert names == ["a-png", "A-jpg", "b-png", "b-png-2", "c", "input0", "input0-2"]


# --- styles --------------------------------------------------------------------------------------------------------


def test_one_look_for_all(synthesizer: Synthesizer) -> None:
    result = synthesizer.generate(MASKS, synthesizer.styles(style_from=5))
    assert result.styles == ("seed5",)
    close(result.images, synthesizer.generate(MASKS, [5]).images)
    with pytest.raises(ConfigError, match="both say the style"):
        synthesizer.styles([1], style_from=5)


def test_fine_layers_of_another_look(synthesizer: Synthesizer) -> None:
    plain, mixed = synthesizer.styles([1, 2]).source, synthesizer.styles([1, 2], style_mix=6).source
    first = synthesizer.generator.first_style(synthesizer.generator.split)
    assert 0 < first < synthesizer.generator.num_ws
    close(mixed.ws[:, :first], plain.ws[:, :first])
    close(mixed.ws[:, first:], synthesizer.styles([6]).source.ws[:, first:].expand(2, -1, -1))
    close(mixed.features.map, synthesizer.generator.features(mixed.ws).map)
    one = synthesizer.generate(mask(), synthesizer.styles([6], style_mix=6)).images
    close(one, synthesizer.generate(mask(), [6]).images)


def test_a_look_from_a_picture(
    synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sisug.synthesis.inversion.CANDIDATES", 32)
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 100)
    ws = synthesizer.styles([11], truncation=0.7).source.ws
    picture = synthesizer.generator.render(synthesizer.generator.features(ws), ws).clamp(-1, 1)
    # Larger, so that it has to be brought to size; and not under inference_mode, which inversion must leave.
    large = ((picture[0] + 1) * 127.5).round().byte().repeat_interleave(2, 1).repeat_interleave(2, 2)
    Image.fromarray(large.permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    with torch.inference_mode(), caplog.at_level(logging.INFO, "sisug"):
        result = synthesizer.generate(mask(), synthesizer.styles(style_from=tmp_path / "photo.png"))
    assert result.styles == ("photo",)
    found = result.record["style_from"]
    assert found["psnr"] > 22  # the picture is clamped, which the generator is not
    assert "inverted at" in caplog.text
    again = synthesizer.generate(mask(), synthesizer.styles(style_from=tmp_path / "photo.png"))
    assert torch.equal(result.images, again.images)


@pytest.mark.parametrize(("psnr", "poor"), [(14.9, True), (15.1, False)])
def test_below_15_db_a_picture_was_hardly_found(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch, psnr: float, poor: bool
) -> None:
    ws = synthesizer.styles([11]).source.ws
    found = Inversion(ws, synthesizer.generator.images(ws), psnr)
    monkeypatch.setattr("sisug.synthesis.styles.invert", lambda *_: found)
    styles = synthesizer.styles(style_from=torch.zeros(3, 16, 16))
    assert any("expect little of it" in warning for warning in styles.warnings) is poor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.png", "no such file"),
        ("small.png", "too small: 8x8"),
        ("empty.png", "empty file"),
        (torch.zeros(3, 8, 8), r"of \(3, 16, 16\) is needed"),
        (torch.full((3, 16, 16), 200.0), "from 200 to 200"),
    ],
)
def test_pictures_that_give_no_look(synthesizer: Synthesizer, given: Any, message: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=message):
        synthesizer.styles(style_from=tmp_path / given if isinstance(given, str) else given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 1.5}, "truncation 1.5"),
        ({"truncation": float("nan")}, "truncation nan"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [-1]}, "seed -1"),
        ({"style_mix": 2**63}, "seeds lie from 0"),
    ],
)
def test_arguments_out_of_range(synthesizer: Synthesizer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthesizer.styles(**options)


def test_no_images_at_a_time(synthesizer: Synthesizer) -> None:
    with pytest.raises(ConfigError, match="batch_size 0"):
        synthesizer.generate(mask(), batch_size=0)


def test_no_drawings(synthesizer: Synthesizer) -> None:
    with pytest.raises(ConfigError, match="no drawings"):
        synthesizer.generate([], [0])


# --- exemplars -----------------------------------------------------------------------------------------------------


def test_the_structure_of_a_sample(rearranger_file: Path) -> None:
    synthesizer = Synthesizer.from_rearranger(rearranger_file)
    result = synthesizer.generate_like(3, synthesizer.styles([3, 4], truncation=0.5), truncation=0.5)
    ws = synthesizer.styles([3, 4], truncation=0.5).source.ws
    rearranger = synthesizer.rearranger
    features = rearranger.generator.features(ws)
    masks = rearranger.codebook.assign(features.map)
    laid_out = rearranger.network(features, masks, masks[:1].expand(2, -1, -1), ws)
    close(result.images[0], synthesizer.generator.render(laid_out, ws).clamp(-1, 1))
    assert result.names == ("like-seed3",)
    assert result.record["inputs"] == [{"name": "like-seed3", "exemplar": {"seed": 3}}]
    with pytest.raises(ConfigError, match="without a mapper"):
        synthesizer.generate(mask(), [0])


def test_the_structure_of_a_picture(rearranger_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisug.synthesis.inversion.CANDIDATES", 16)
    monkeypatch.setattr("sisug.synthesis.inversion.STEPS", 3)
    synthesizer = Synthesizer.from_rearranger(rearranger_file)
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    result = synthesizer.generate_like(picture, [0, 1])
    assert result.images.shape == (1, 2, 3, 16, 16)
    assert result.names == ("like-picture",)


# --- files ---------------------------------------------------------------------------------------------------------


def test_images_are_written_as_they_are(synthesizer: Synthesizer, tmp_path: Path) -> None:
    result = synthesizer.generate(MASKS[:2], [0, 3])
    paths = result.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "input0-seed0.png", "input0-seed3.png", "input1-seed0.png", "input1-seed3.png",
    ]  # fmt: skip
    with Image.open(paths[3]) as image:
        written = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1
    assert float((written - result.images[1, 1]).abs().max()) <= 0.5 / 127.5 + 1e-6
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [path.name for path in paths]


def test_a_sheet_shows_drawing_and_images(synthesizer: Synthesizer, tmp_path: Path) -> None:
    result = synthesizer.generate(MASKS[:2], [0, 3])
    result.save_grid(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.array(image.convert("RGB"))
    # Cells are enlarged 12 times to 192 pixels; the last lies in the lower right corner.
    last = sheet[-194:-2, -194:-2][6::12, 6::12]
    expected = ((result.images[1, 1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(last, expected)
    first = sheet[-194:-2, -3 * 194 : -2 * 194 - 2][6::12, 6::12]
    assert np.array_equal(first, result.shown[1].permute(1, 2, 0).numpy())


def test_records_are_json(synthesizer: Synthesizer, mapper_file: Path, tiny_generator_file: Path) -> None:
    import hashlib

    record = json.loads(
        json.dumps(synthesizer.generate(mask(), synthesizer.styles([2], truncation=0.6, style_mix=1)).record)
    )
    assert record["mapper"]["sha256"] == hashlib.sha256(mapper_file.read_bytes()).hexdigest()
    assert record["generator"]["source"] == str(tiny_generator_file)
    assert record["generator"]["fingerprint"] == synthesizer.generator.fingerprint
    assert record["inputs"][0]["sha256"] == hashlib.sha256(mask().tobytes()).hexdigest()
    assert (record["seeds"], record["truncation"], record["style_mix"]) == ([2], 0.6, 1)
    assert record["sisug"] == sisug.__version__


# --- loading -------------------------------------------------------------------------------------------------------


def test_devices_are_checked_before_files_are_read() -> None:
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device '{name}'"):
            Synthesizer.load("none.ckpt", device=name)


def test_files_that_are_no_mapper(rearranger_file: Path, mapper_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        Synthesizer.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no record of a sisug-mapper"):
        Synthesizer.load(rearranger_file)
    with pytest.raises(CheckpointError, match="no record of a sisug-rearranger"):
        Synthesizer.from_rearranger(mapper_file)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="another stage"):
        Synthesizer.load(tmp_path / "other.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CheckpointError, match="cut short"):
        Synthesizer.load(tmp_path / "cut.ckpt")


def test_another_generator_is_refused(mapper_file: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        write_native(tmp_path / "other.safetensors", Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    with pytest.raises(FingerprintMismatch, match="other weights"):
        Synthesizer.load(mapper_file, generator=tmp_path / "other.safetensors")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_images(mapper_file: Path) -> None:
    on_cpu = Synthesizer.load(mapper_file, device="cpu").generate(MASKS, range(4)).images
    on_gpu = Synthesizer.load(mapper_file, device="cuda").generate(MASKS, range(4)).images
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=2e-2)


def test_a_class_that_no_label_showed_is_named(synthesizer: Synthesizer, caplog: pytest.LogCaptureFixture) -> None:
    assert synthesizer.mapper is not None
    drawing = torch.zeros(16, 16, dtype=torch.int64)
    drawing[4:] = 2
    taught = dataclasses.replace(synthesizer.mapper, lesson={"seen": {"left": 9, "right": 0, "rest": 0}})
    synthesizer.mapper = taught
    synthesizer.generate(drawing, [0])
    assert "input0: no label of this mapper shows rest;" in caplog.text
    caplog.clear()
    synthesizer.mapper = dataclasses.replace(taught, lesson={"seen": {"left": 0, "right": 0, "rest": 0}})  # no limit
    synthesizer.generate(drawing, [0])
    assert not caplog.text
