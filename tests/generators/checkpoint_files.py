"""Tiny checkpoints of every family, true to the structure of the published ones (generators): random weights, written
without sisug's code, so that what sisug reads is compared with something else than itself.

Pickles name classes that are not installed, as the published ones do: the writer below emits names without importing
them, so that nothing could be imported back either.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]

SOURCE_CODE = "raise SystemExit('code of the file was run')\n" + "# what the original file would hold\n" * 200
"""Stands where NVIDIA's files carry the source of their networks."""

FIR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


# --- weights ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """One pair of networks, from which every family's file is written.

    Args:
        generator: NVIDIA's names and orientation, `mapping.*` and `synthesis.*`.
        discriminator: the same, without a prefix.
        architecture: of the generator.
        discriminator_architecture: "resnet" or "orig".
        clamp: bound on the generator's activations.
        half_blocks: highest resolutions that the authors' code would compute in fp16.
        labels: classes; 0 for none.
        lr_multiplier: of the mapping network.
    """

    generator: Weights
    discriminator: Weights
    architecture: str = "skip"
    discriminator_architecture: str = "resnet"
    clamp: float | None = None
    half_blocks: int = 0
    labels: int = 0
    lr_multiplier: float = 0.01

    @property
    def resolutions(self) -> list[int]:
        return [int(name.split(".")[1][1:]) for name in self.generator if name.endswith("conv1.bias")]

    @property
    def resolution(self) -> int:
        return max(self.resolutions)

    @property
    def mapping_layers(self) -> int:
        return sum(name.startswith("mapping.fc") and name.endswith("bias") for name in self.generator)

    @property
    def w_dim(self) -> int:
        return len(self.generator["mapping.w_avg"])

    @property
    def z_dim(self) -> int:
        embedded = len(self.generator["mapping.embed.bias"]) if self.labels else 0
        return self.generator["mapping.fc0.weight"].shape[1] - embedded

    @property
    def num_ws(self) -> int:
        return 2 * len(self.resolutions)


def channels_of(resolution: int, base: int = 128, most: int = 12) -> dict[int, int]:
    """Resolution to channels by the published rule, with odd ones among them, so that no two sizes agree by chance."""
    return {r: min(base // r, most) + (r == 8) for r in (4 << i for i in range(int(math.log2(resolution)) - 1))}


def random_model(
    resolution: int = 16,
    *,
    channels: Mapping[int, int] | None = None,
    z_dim: int = 9,
    w_dim: int = 11,
    layers: int = 2,
    architecture: str = "skip",
    discriminator_architecture: str = "resnet",
    clamp: float | None = None,
    half_blocks: int = 0,
    labels: int = 0,
    lr_multiplier: float = 0.01,
    seed: int = 0,
) -> Model:
    """Random weights in which noise, biases and the mean style matter."""
    draw = torch.Generator().manual_seed(seed)
    channels = channels_of(resolution) if channels is None else channels

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=draw) * scale

    def perceptron(first: int, width: int) -> Iterator[tuple[str, Tensor]]:
        for i in range(layers):
            yield f"mapping.fc{i}.weight", normal(width, first if i == 0 else width, scale=1 / lr_multiplier)
            yield f"mapping.fc{i}.bias", normal(width, scale=0.3 / lr_multiplier)

    def embedding(width: int) -> Iterator[tuple[str, Tensor]]:
        if labels:
            yield "mapping.embed.weight", normal(width, labels)
            yield "mapping.embed.bias", normal(width, scale=0.3)

    def affine(name: str, size: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.affine.weight", normal(size, w_dim)
        # Around one, and of few digits: families that store it without the one give it back to the bit.
        yield f"{name}.affine.bias", 1 + torch.round(normal(size, scale=0.3) * 1024) / 1024

    def layer(name: str, below: int, size: int, r: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", normal(size, below, 3, 3)
        yield f"{name}.noise_strength", normal(scale=0.5)
        yield f"{name}.bias", normal(size, scale=0.3)
        yield f"{name}.resample_filter", FIR.clone()
        yield f"{name}.noise_const", normal(r, r)
        yield from affine(name, below)

    g: Weights = {"mapping.w_avg": normal(w_dim, scale=0.5)}
    g |= dict(embedding(w_dim))
    g |= dict(perceptron(z_dim + (w_dim if labels else 0), w_dim))
    below = 0
    for r, size in channels.items():
        name = f"synthesis.b{r}"
        if below:
            g |= dict(layer(f"{name}.conv0", below, size, r))
        else:
            g[f"{name}.const"] = normal(size, 4, 4)
        g[f"{name}.resample_filter"] = FIR.clone()
        g |= dict(layer(f"{name}.conv1", size, size, r))
        if architecture == "skip" or r == max(channels):
            g[f"{name}.torgb.weight"] = normal(3, size, 1, 1)
            g[f"{name}.torgb.bias"] = normal(3, scale=0.3)
            g |= dict(affine(f"{name}.torgb", size))
        if architecture == "resnet" and below:
            g[f"{name}.skip.weight"] = normal(size, below, 1, 1)
            g[f"{name}.skip.resample_filter"] = FIR.clone()
        below = size

    d: Weights = {}
    for r in sorted(channels, reverse=True)[:-1]:
        name = f"b{r}"
        d[f"{name}.resample_filter"] = FIR.clone()
        parts = [("conv0", channels[r], channels[r], 3), ("conv1", channels[r // 2], channels[r], 3)]
        if r == max(channels):
            parts.insert(0, ("fromrgb", channels[r], 3, 1))
        if discriminator_architecture == "resnet":
            parts.append(("skip", channels[r // 2], channels[r], 1))
        for part, out, into, width in parts:
            d[f"{name}.{part}.weight"] = normal(out, into, width, width)
            if part != "skip":
                d[f"{name}.{part}.bias"] = normal(out, scale=0.3)
            d[f"{name}.{part}.resample_filter"] = FIR.clone()
    size = channels[4]
    d |= {"b4.conv.weight": normal(size, size + 1, 3, 3), "b4.conv.bias": normal(size, scale=0.3)}
    d["b4.conv.resample_filter"] = FIR.clone()
    d |= {"b4.fc.weight": normal(size, size * 16), "b4.fc.bias": normal(size, scale=0.3)}
    condition = size if labels else 1
    d |= {"b4.out.weight": normal(condition, size), "b4.out.bias": normal(condition, scale=0.3)}
    d |= dict(embedding(size))
    if labels:
        d |= dict(perceptron(size, size))
    return Model(g, d, architecture, discriminator_architecture, clamp, half_blocks, labels, lr_multiplier)


def large_model() -> Model:
    """At the size of published generators of 256 px, with half of the largest ones' channels."""
    channels = {4 << i: min(16384 // (4 << i), 512) for i in range(7)}
    return random_model(256, channels=channels, z_dim=512, w_dim=512, layers=8)


def averaging(model: Model) -> Model:
    """Weights as they are in training beside the averaged ones: whoever takes them gets other images."""
    other = {name: value + 0.5 if value.numel() > 16 else value.clone() for name, value in model.generator.items()}
    return replace(model, generator=other)


# --- pickles that name what is not installed -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Name:
    """A global of a pickle, which need not exist."""

    module: str
    name: str

    def __call__(self, *_: object) -> None:
        raise AssertionError("a name is written, never called")


@dataclass(frozen=True, eq=False)
class Call:
    """An object that is made by a call when the pickle is loaded."""

    function: Name
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@dataclass(frozen=True, eq=False)
class NewObject:
    """An object that is made without its constructor, then filled: a dict of a class, or one with a state."""

    kind: Name
    items: Mapping[str, Any] | None = None
    state: Any = None


NumpyNames = Literal["numpy.core", "numpy._core"]


class Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Python's own pickler in Python, that writes names without importing them.

    Args:
        file: target.
        protocol: 2 to 5.
        numpy_names: where numpy's functions lie: `numpy.core` before numpy 2.
    """

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: Any, protocol: int, numpy_names: NumpyNames = "numpy.core") -> None:
        super().__init__(file, protocol)
        self.numpy_names = numpy_names

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = pickle.whichmodule(obj, name or obj.__qualname__)  # type: ignore[attr-defined]
        if module.startswith("numpy._core"):
            module = module.replace("numpy._core", self.numpy_names, 1)
            self.save_name(Name(module, name or obj.__qualname__), memoised=obj)
        else:
            super().save_global(obj, name)

    def save_name(self, obj: Name, memoised: object = None) -> None:
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj if memoised is None else memoised)

    def save_new_object(self, obj: NewObject) -> None:
        self.save(obj.kind)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        if obj.items is not None:
            self._batch_setitems(obj.items.items())
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    dispatch[Name] = save_name
    dispatch[NewObject] = save_new_object
    dispatch[types.FunctionType] = save_global


def write_pickle(path: Path, content: Any, protocol: int = 3, numpy_names: NumpyNames = "numpy.core") -> Path:
    """Pickle with names that need not exist."""
    buffer = io.BytesIO()
    Pickler(buffer, protocol, numpy_names).dump(content)
    path.write_bytes(buffer.getvalue())
    return path


@contextmanager
def storages_from(device: str) -> Iterator[None]:
    """Within, torch writes that tensors lay on this device."""
    original = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: device
    try:
        yield
    finally:
        torch.serialization.location_tag = original


# --- NVIDIA ----------------------------------------------------------------------------------------------------------

PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
EASY_DICT = Name("dnnlib.util", "EasyDict")


def easy(**items: Any) -> NewObject:
    """NVIDIA's dict with attributes."""
    return NewObject(EASY_DICT, items=items)


def persistent(class_name: str, state: Mapping[str, Any]) -> Call:
    """An object of NVIDIA's persistent classes."""
    meta = {"type": "class", "version": 6, "module_src": SOURCE_CODE, "class_name": class_name, "state": dict(state)}
    return Call(PERSISTENT, (meta,))


def nn_module(
    class_name: str,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    modules: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Call:
    """A persistent torch.nn.Module; `options` are the arguments that it was made with."""
    frozen = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in parameters.items()}
    hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks")
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(frozen),
        "_buffers": OrderedDict(buffers),
        "_non_persistent_buffers_set": set(),
        **{name: OrderedDict() for name in hooks},
        "_is_full_backward_hook": None,
        "_load_state_dict_pre_hooks": OrderedDict(),
        "_modules": OrderedDict(modules),
        **attributes,
        "_init_args": (),
        "_init_kwargs": dict(options or {}),
    }
    return persistent(class_name, state)


@dataclass(frozen=True)
class Layout:
    """What differs between NVIDIA's two repositories, and between the versions of one.

    Args:
        repository: "ada" (nested settings) or "stylegan3" (flat ones, and more attributes).
        settings: whether the arguments of the constructor name what is not the default.
        channels_last: 4-D weights lie in memory as fp16 training on some GPUs leaves them.
        frozen_layers: discriminator layers whose weights are buffers, as freezing them in training leaves them.
    """

    repository: Literal["ada", "stylegan3"] = "ada"
    settings: bool = True
    channels_last: bool = False
    frozen_layers: bool = False

    @property
    def flat(self) -> bool:
        return self.repository == "stylegan3"


ADA, STYLEGAN3 = Layout(), Layout("stylegan3")


class _NvidiaEncoder:
    """Modules of one model; equal weights are one object, as a pickle of NVIDIA's has each tensor once."""

    def __init__(self, model: Model, layout: Layout) -> None:
        self.model, self.layout = model, layout

    def more(self, **attributes: Any) -> dict[str, Any]:
        """Attributes that the newer repository has."""
        return attributes if self.layout.flat else {}

    def own(self, value: Tensor) -> Tensor:
        """A tensor that is written by itself, laid out in memory as asked."""
        if self.layout.channels_last and value.ndim == 4:
            return value.clone().contiguous(memory_format=torch.channels_last)
        return value.clone()

    def part(self, weights: Weights, prefix: str, *names: str) -> dict[str, Tensor]:
        return {name: self.own(weights[f"{prefix}.{name}"]) for name in names if f"{prefix}.{name}" in weights}

    def linear(self, weights: Weights, prefix: str, activation: str = "linear", multiplier: float = 1.0) -> Call:
        tensors = self.part(weights, prefix, "weight", "bias")
        out, into = tensors["weight"].shape
        return nn_module(
            "FullyConnectedLayer",
            tensors,
            {},
            {},
            **self.more(in_features=into, out_features=out),
            activation=activation,
            weight_gain=multiplier / np.sqrt(into),  # numpy's float64, as in the published files
            bias_gain=multiplier,
        )

    def mapping(self, weights: Weights, z_dim: int, w_dim: int, num_ws: int | None) -> Call:
        modules: dict[str, Any] = {}
        if self.model.labels:
            modules["embed"] = self.linear(weights, "mapping.embed")
        layer = 0
        while f"mapping.fc{layer}.weight" in weights:
            name = f"mapping.fc{layer}"
            modules[f"fc{layer}"] = self.linear(weights, name, "lrelu", self.model.lr_multiplier)
            layer += 1
        buffers = self.part(weights, "mapping", "w_avg")
        options: dict[str, Any] = {"z_dim": z_dim, "c_dim": self.model.labels, "w_dim": w_dim, "num_ws": num_ws}
        options["num_layers"] = layer
        beta = None if num_ws is None else 0.995
        attributes = {**options, "w_avg_beta": beta}
        return nn_module("MappingNetwork", {}, buffers, modules, options, **attributes)

    def layer(self, prefix: str, resolution: int, up: int) -> Call:
        g = self.model.generator
        tensors = self.part(g, prefix, "weight", "noise_strength", "bias")
        out, into = tensors["weight"].shape[:2]
        return nn_module(
            "SynthesisLayer",
            tensors,
            self.part(g, prefix, "resample_filter", "noise_const"),
            {"affine": self.linear(g, f"{prefix}.affine")},
            {"w_dim": self.model.w_dim, "resolution": resolution, "conv_clamp": self.model.clamp},
            **self.more(in_channels=into, out_channels=out, w_dim=self.model.w_dim),
            resolution=resolution,
            up=up,
            use_noise=True,
            activation="lrelu",
            conv_clamp=self.model.clamp,
            padding=1,
            act_gain=np.sqrt(2),
        )

    def block(self, r: int) -> Call:
        model, g, name = self.model, self.model.generator, f"synthesis.b{r}"
        last = r == model.resolution
        half = r > model.resolution >> model.half_blocks
        modules: dict[str, Any] = {}
        if r > 4:
            modules["conv0"] = self.layer(f"{name}.conv0", r, 2)
        modules["conv1"] = self.layer(f"{name}.conv1", r, 1)
        if f"{name}.torgb.weight" in g:
            weight = g[f"{name}.torgb.weight"]
            modules["torgb"] = nn_module(
                "ToRGBLayer",
                self.part(g, f"{name}.torgb", "weight", "bias"),
                {},
                {"affine": self.linear(g, f"{name}.torgb.affine")},
                **self.more(in_channels=weight.shape[1], out_channels=3, w_dim=model.w_dim),
                conv_clamp=model.clamp,
                weight_gain=1 / np.sqrt(weight.shape[1]),
            )
        if f"{name}.skip.weight" in g:
            modules["skip"] = self.convolution(g, f"{name}.skip", up=2)
        return nn_module(
            "SynthesisBlock",
            self.part(g, name, "const"),
            self.part(g, name, "resample_filter"),
            modules,
            {"w_dim": model.w_dim, "use_fp16": half, "conv_clamp": model.clamp},
            in_channels=0 if r == 4 else g[f"{name}.conv0.weight"].shape[1],
            w_dim=model.w_dim,
            resolution=r,
            img_channels=3,
            is_last=last,
            architecture=model.architecture,
            use_fp16=half,
            channels_last=self.layout.channels_last,
            **self.more(fused_modconv_default="inference_only"),
            num_conv=1 if r == 4 else 2,
            num_torgb=int("torgb" in modules),
        )

    def convolution(self, weights: Weights, prefix: str, *, up: int = 1, down: int = 1, linear: bool = False) -> Call:
        tensors = self.part(weights, prefix, "weight", "bias")
        shape = tensors["weight"].shape
        linear = linear or "bias" not in tensors
        without = {} if "bias" in tensors else {"bias": None}
        buffers = self.part(weights, prefix, "resample_filter")
        frozen = self.layout.frozen_layers and weights is self.model.discriminator
        return nn_module(
            "Conv2dLayer",
            {} if frozen else tensors,
            buffers | tensors if frozen else buffers,
            {},
            **self.more(in_channels=shape[1], out_channels=shape[0]),
            activation="linear" if linear else "lrelu",
            up=up,
            down=down,
            conv_clamp=None,
            padding=shape[-1] // 2,
            weight_gain=1 / np.sqrt(shape[1] * shape[2] ** 2),
            act_gain=1 if linear else np.sqrt(2),
            **without,
        )

    def generator(self) -> Call:
        model = self.model
        sizes = {"w_dim": model.w_dim, "img_resolution": model.resolution, "img_channels": 3}
        settings: dict[str, Any] = {"channel_base": 128, "channel_max": 12}
        if self.layout.settings:
            settings |= {"num_fp16_res": model.half_blocks, "conv_clamp": model.clamp}
        blocks = {f"b{r}": self.block(r) for r in model.resolutions}
        attributes = {
            **sizes,
            "img_resolution_log2": int(math.log2(model.resolution)),
            **self.more(num_fp16_res=model.half_blocks),
            "block_resolutions": model.resolutions,
            "num_ws": model.num_ws,
        }
        synthesis = nn_module("SynthesisNetwork", {}, {}, blocks, {**sizes, **settings}, **attributes)
        mapping = self.mapping(model.generator, model.z_dim, model.w_dim, model.num_ws)
        named = {"z_dim": model.z_dim, "c_dim": model.labels, **sizes}
        mapping_options = easy(num_layers=model.mapping_layers)
        if self.layout.flat:
            options = {**named, "mapping_kwargs": mapping_options, **settings}
        else:
            options = {**named, "mapping_kwargs": mapping_options, "synthesis_kwargs": easy(**settings)}
        modules = {"synthesis": synthesis, "mapping": mapping}
        return nn_module("Generator", {}, {}, modules, options, **named, num_ws=model.num_ws)

    def discriminator(self) -> Call:
        model, d = self.model, self.model.discriminator
        architecture = model.discriminator_architecture
        modules: dict[str, Any] = {}
        for r in sorted(model.resolutions, reverse=True)[:-1]:
            name = f"b{r}"
            first = r == model.resolution
            parts = {"fromrgb": self.convolution(d, f"{name}.fromrgb")} if first else {}
            parts["conv0"] = self.convolution(d, f"{name}.conv0")
            parts["conv1"] = self.convolution(d, f"{name}.conv1", down=2)
            if f"{name}.skip.weight" in d:
                parts["skip"] = self.convolution(d, f"{name}.skip", down=2)
            modules[name] = nn_module(
                "DiscriminatorBlock",
                {},
                self.part(d, name, "resample_filter"),
                parts,
                in_channels=0 if first else d[f"{name}.conv0.weight"].shape[1],
                resolution=r,
                img_channels=3,
                first_layer_idx=0,
                architecture=architecture,
                use_fp16=r > model.resolution >> model.half_blocks,
                channels_last=False,
                num_layers=len(parts),
            )
        size = d["b4.fc.bias"].shape[0]
        condition = size if model.labels else 0
        modules["b4"] = nn_module(
            "DiscriminatorEpilogue",
            {},
            {},
            {
                "mbstd": nn_module("MinibatchStdLayer", {}, {}, {}, group_size=4, num_channels=1),
                "conv": self.convolution(d, "b4.conv"),
                "fc": self.linear(d, "b4.fc", "lrelu"),
                "out": self.linear(d, "b4.out"),
            },
            in_channels=size,
            cmap_dim=condition,
            resolution=4,
            img_channels=3,
            architecture=architecture,
        )
        if model.labels:
            modules["mapping"] = self.mapping(d, 0, size, None)
        options = {"c_dim": model.labels, "img_resolution": model.resolution, "img_channels": 3}
        options |= {"architecture": architecture, "channel_base": 128, "channel_max": 12, "epilogue_kwargs": easy()}
        attributes = {"img_resolution_log2": int(math.log2(model.resolution)), "block_resolutions": model.resolutions}
        named = {"c_dim": model.labels, "img_resolution": model.resolution, "img_channels": 3}
        return nn_module("Discriminator", {}, {}, modules, options, **named, **attributes)


def nvidia_content(model: Model, layout: Layout = ADA) -> dict[str, Any]:
    """What NVIDIA's training loop pickles."""
    data = {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip", "use_labels": model.labels > 0}
    data |= {"max_size": 70000, "xflip": False, "resolution": model.resolution}
    encoder = _NvidiaEncoder(model, layout)
    trained = _NvidiaEncoder(averaging(model), layout)
    networks = {"G": trained.generator(), "D": encoder.discriminator(), "G_ema": encoder.generator()}
    if layout.flat:
        return {**networks, "augment_pipe": None, "training_set_kwargs": data}
    return {"training_set_kwargs": data, **networks, "augment_pipe": None}


def write_nvidia(
    path: Path,
    model: Model,
    layout: Layout = ADA,
    *,
    protocol: int = 3,
    numpy_names: NumpyNames = "numpy.core",
    device: str = "cpu",
) -> Path:
    """NVIDIA's `.pkl`, of stylegan2-ada-pytorch or of the stylegan3 repository."""
    with storages_from(device):
        return write_pickle(path, nvidia_content(model, layout), protocol, numpy_names)


def write_stylegan3(path: Path) -> Path:
    """A StyleGAN3 network, which is another kind of generator."""
    settings = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 64, "img_channels": 3}
    affine = nn_module("FullyConnectedLayer", {"weight": torch.ones(4, 8), "bias": torch.ones(4)}, {}, {})
    source = nn_module(
        "SynthesisInput",
        {"weight": torch.randn(8, 8)},
        {"transform": torch.eye(3), "freqs": torch.randn(8, 2), "phases": torch.randn(8)},
        {"affine": affine},
    )
    layer = nn_module(
        "SynthesisLayer",
        {"weight": torch.randn(8, 8, 3, 3), "bias": torch.zeros(8)},
        {"magnitude_ema": torch.ones([]), "up_filter": torch.ones(12), "down_filter": torch.ones(12)},
        {"affine": affine},
    )
    synthesis = nn_module("SynthesisNetwork", {}, {}, {"input": source, "L0_36_8": layer, "L1_36_3": layer})
    linear = nn_module("FullyConnectedLayer", {"weight": torch.randn(8, 8), "bias": torch.zeros(8)}, {}, {})
    mapping = nn_module("MappingNetwork", {}, {"w_avg": torch.zeros(8)}, {"fc0": linear, "fc1": linear})
    g = nn_module("Generator", {}, {}, {"synthesis": synthesis, "mapping": mapping}, settings, **settings)
    return write_pickle(path, {"G": g, "D": g, "G_ema": g, "training_set_kwargs": {}, "augment_pipe": None}, 4)


# --- rosinality ------------------------------------------------------------------------------------------------------


def rosinality_generator(weights: Weights, *, noises: bool = True) -> Weights:
    """Generator under rosinality's names; the mean style is not part of it."""
    resolutions = [int(name.split(".")[1][1:]) for name in weights if name.endswith("conv1.bias")]
    out: Weights = {}

    def layer(target: str, source: str) -> None:
        out[f"{target}.conv.weight"] = weights[f"{source}.weight"][None]
        if source.endswith("conv0"):
            out[f"{target}.conv.blur.kernel"] = weights[f"{source}.resample_filter"] * 4
        modulation(f"{target}.conv", source)
        out[f"{target}.noise.weight"] = weights[f"{source}.noise_strength"].reshape(1)
        out[f"{target}.activate.bias"] = weights[f"{source}.bias"]

    def modulation(target: str, source: str) -> None:
        out[f"{target}.modulation.weight"] = weights[f"{source}.affine.weight"]
        out[f"{target}.modulation.bias"] = weights[f"{source}.affine.bias"]

    def colours(target: str, r: int) -> None:
        source = f"synthesis.b{r}.torgb"
        out[f"{target}.bias"] = weights[f"{source}.bias"].reshape(1, 3, 1, 1)
        if r > 4:
            out[f"{target}.upsample.kernel"] = weights[f"synthesis.b{r}.resample_filter"] * 4
        out[f"{target}.conv.weight"] = weights[f"{source}.weight"][None]
        modulation(f"{target}.conv", source)

    index = 0
    while f"mapping.fc{index}.weight" in weights:
        out[f"style.{index + 1}.weight"] = weights[f"mapping.fc{index}.weight"]
        out[f"style.{index + 1}.bias"] = weights[f"mapping.fc{index}.bias"]
        index += 1
    out["input.input"] = weights["synthesis.b4.const"][None]
    layer("conv1", "synthesis.b4.conv1")
    colours("to_rgb1", 4)
    for k, r in enumerate(resolutions[1:]):
        layer(f"convs.{2 * k}", f"synthesis.b{r}.conv0")
        layer(f"convs.{2 * k + 1}", f"synthesis.b{r}.conv1")
    for k, r in enumerate(resolutions[1:]):
        colours(f"to_rgbs.{k}", r)
    if noises:
        places = ["b4.conv1", *(f"b{r}.conv{i}" for r in resolutions[1:] for i in (0, 1))]
        for i, place in enumerate(places):
            out[f"noises.noise_{i}"] = weights[f"synthesis.{place}.noise_const"][None, None]
    return out


def rosinality_discriminator(weights: Weights) -> Weights:
    """Discriminator under rosinality's names."""
    resolutions = sorted({int(name.split(".")[0][1:]) for name in weights}, reverse=True)
    first = f"b{resolutions[0]}.fromrgb"
    out: Weights = {"convs.0.0.weight": weights[f"{first}.weight"], "convs.0.1.bias": weights[f"{first}.bias"]}
    for i, r in enumerate(resolutions[:-1], start=1):
        out |= {
            f"convs.{i}.conv1.0.weight": weights[f"b{r}.conv0.weight"],
            f"convs.{i}.conv1.1.bias": weights[f"b{r}.conv0.bias"],
            f"convs.{i}.conv2.0.kernel": weights[f"b{r}.conv1.resample_filter"],
            f"convs.{i}.conv2.1.weight": weights[f"b{r}.conv1.weight"],
            f"convs.{i}.conv2.2.bias": weights[f"b{r}.conv1.bias"],
            f"convs.{i}.skip.0.kernel": weights[f"b{r}.skip.resample_filter"],
            f"convs.{i}.skip.1.weight": weights[f"b{r}.skip.weight"],
        }
    names = {"final_conv.0.weight": "conv.weight", "final_conv.1.bias": "conv.bias"}
    for i, layer in enumerate(("fc", "out")):
        names |= {f"final_linear.{i}.{kind}": f"{layer}.{kind}" for kind in ("weight", "bias")}
    return out | {target: weights[f"b4.{source}"] for target, source in names.items()}


def state_dict(weights: Weights, prefix: str = "") -> OrderedDict[str, Tensor]:
    """As torch's modules give it: ordered, each tensor by itself, with a note on versions."""
    state = OrderedDict((prefix + name, value.clone()) for name, value in weights.items())
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


Rosinality = Literal["converted", "trained", "exported", "bare"]


def write_rosinality(
    path: Path,
    model: Model,
    kind: Rosinality = "converted",
    *,
    noises: bool = True,
    mean_style: bool = True,
    prefix: str = "",
    zipped: bool = True,
    discriminator: bool = True,
) -> Path:
    """Rosinality's `.pt`: by its converter (mean style), by its training (optimisers, settings), or a bare state."""
    g = state_dict(rosinality_generator(model.generator, noises=noises), prefix)
    trained = state_dict(rosinality_generator(averaging(model).generator, noises=noises), prefix)
    d = {"d": state_dict(rosinality_discriminator(model.discriminator), prefix)} if discriminator else {}
    content: dict[str, Any] = {"g_ema": g}
    if kind == "converted":
        content = {"g_ema": g, "g": trained, **d}
    elif kind == "trained":
        moments = {"step": 10, "exp_avg": torch.randn(4), "exp_avg_sq": torch.randn(4)}
        group = {"lr": 0.0016, "betas": (0.0, 0.99), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": [0]}
        optimiser = {"state": {0: moments}, "param_groups": [group]}
        options = argparse.Namespace(path="data.lmdb", size=model.resolution, latent=model.w_dim, lr=0.002, ckpt=None)
        content = {"g": trained, **d, "g_ema": g, "g_optim": optimiser, "d_optim": optimiser}
        content |= {"args": options, "ada_aug_p": 0.25}
    elif kind == "bare":
        content = dict(g)
    if mean_style and kind != "bare":
        # A view into a larger storage, as slices of computed tensors are saved.
        around = torch.full((model.w_dim + 7,), 9.0)
        around[3 : 3 + model.w_dim] = model.generator["mapping.w_avg"]
        content["latent_avg"] = around[3 : 3 + model.w_dim]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def write_psp(path: Path, model: Model, *, every_layer: bool = True) -> Path:
    """A pSp-style file: an encoder, the generator under `decoder.`, the mean style for one or for every layer."""
    state: Weights = {
        "encoder.input_layer.0.weight": torch.randn(4, 3, 3, 3),
        "encoder.input_layer.1.running_mean": torch.zeros(4),
        "encoder.input_layer.1.num_batches_tracked": torch.tensor(7),
        "encoder.styles.0.convs.0.weight": torch.randn(4, 4, 3, 3),
    }
    state |= {f"decoder.{name}": value.clone() for name, value in rosinality_generator(model.generator).items()}
    mean = model.generator["mapping.w_avg"]
    mean = mean.repeat(model.num_ws, 1) if every_layer else mean
    options = {"exp_dir": "runs", "start_from_latent_avg": True, "output_size": model.resolution, "lr": 1e-4}
    torch.save({"state_dict": OrderedDict(state), "opts": options, "latent_avg": mean}, path)
    return path


# --- TensorFlow ------------------------------------------------------------------------------------------------------

TF_NETWORK = Name("dnnlib.tflib.network", "Network")


def _hwio(weight: Tensor, *, flip: bool = False) -> np.ndarray:
    """Convolution weights (out, in, height, width) in TensorFlow's order."""
    turned = weight.flip(2, 3) if flip else weight
    return np.ascontiguousarray(turned.permute(2, 3, 1, 0).numpy())


def _array(value: Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.numpy())


def tensorflow_generator(model: Model, *, fortran: bool = False) -> NewObject:
    """The averaged generator, Gs, with its mapping and synthesis as components."""
    g = model.generator
    order = np.asfortranarray if fortran else np.ascontiguousarray
    mapping = {}
    if model.labels:
        mapping["LabelEmbed/weight"] = order(_array(g["mapping.embed.weight"]).T)
        mapping["LabelEmbed/bias"] = _array(g["mapping.embed.bias"])
    for i in range(model.mapping_layers):
        mapping[f"Dense{i}/weight"] = order(_array(g[f"mapping.fc{i}.weight"]).T)
        mapping[f"Dense{i}/bias"] = _array(g[f"mapping.fc{i}.bias"])

    synthesis: dict[str, np.ndarray] = {}

    def modulation(target: str, source: str) -> None:
        synthesis[f"{target}/mod_weight"] = order(_array(g[f"{source}.affine.weight"]).T)
        synthesis[f"{target}/mod_bias"] = _array(g[f"{source}.affine.bias"] - 1)
        synthesis[f"{target}/bias"] = _array(g[f"{source}.bias"])

    def layer(target: str, source: str) -> None:
        synthesis[f"{target}/weight"] = order(_hwio(g[f"{source}.weight"], flip=source.endswith("conv0")))
        synthesis[f"{target}/noise_strength"] = _array(g[f"{source}.noise_strength"])
        modulation(target, source)

    synthesis["4x4/Const/const"] = _array(g["synthesis.b4.const"][None])
    layer("4x4/Conv", "synthesis.b4.conv1")
    synthesis["noise0"] = _array(g["synthesis.b4.conv1.noise_const"][None, None])
    for r in model.resolutions:
        level = int(math.log2(r))
        if r > 4:
            layer(f"{r}x{r}/Conv0_up", f"synthesis.b{r}.conv0")
            layer(f"{r}x{r}/Conv1", f"synthesis.b{r}.conv1")
            for i in (0, 1):
                noise = g[f"synthesis.b{r}.conv{i}.noise_const"]
                synthesis[f"noise{2 * level - 5 + i}"] = _array(noise[None, None])
        if model.architecture == "resnet" and r > 4:
            synthesis[f"{r}x{r}/Skip/weight"] = _hwio(g[f"synthesis.b{r}.skip.weight"], flip=True)
        if f"synthesis.b{r}.torgb.weight" in g:
            synthesis[f"{r}x{r}/ToRGB/weight"] = _hwio(g[f"synthesis.b{r}.torgb.weight"])
            modulation(f"{r}x{r}/ToRGB", f"synthesis.b{r}.torgb")
    options = {"num_channels": 3, "resolution": model.resolution, "label_size": model.labels}
    options |= {"latent_size": model.z_dim, "dlatent_size": model.w_dim, "mapping_layers": model.mapping_layers}
    options |= {"mapping_fmaps": model.w_dim, "mapping_lrmul": model.lr_multiplier, "fmap_base": 64, "fmap_max": 12}
    options |= {"architecture": model.architecture, "truncation_psi": None, "randomize_noise": True}
    options |= {"num_fp16_res": model.half_blocks, "conv_clamp": model.clamp}
    parts = {
        "mapping": _network("G_mapping", "G_mapping", {}, mapping),
        "synthesis": _network("G_synthesis", "G_synthesis_stylegan2", {}, synthesis),
    }
    own = {"dlatent_avg": _array(g["mapping.w_avg"])}
    return _network("Gs", "G_main", options, own, parts)


def tensorflow_discriminator(model: Model) -> NewObject:
    """The discriminator, D."""
    out: dict[str, np.ndarray] = {}
    d = model.discriminator
    for r in model.resolutions[1:]:
        names = {"Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip", "FromRGB": "fromrgb"}
        for target, source in names.items():
            if f"b{r}.{source}.weight" in d:
                out[f"{r}x{r}/{target}/weight"] = _hwio(d[f"b{r}.{source}.weight"])
            if f"b{r}.{source}.bias" in d:
                out[f"{r}x{r}/{target}/bias"] = _array(d[f"b{r}.{source}.bias"])
    out["4x4/Conv/weight"] = _hwio(d["b4.conv.weight"])
    out["4x4/Conv/bias"] = _array(d["b4.conv.bias"])
    dense = {"4x4/Dense0": "b4.fc", "Output": "b4.out"}
    if model.labels:
        dense["LabelEmbed"] = "mapping.embed"
        dense |= {f"Mapping{i}": f"mapping.fc{i}" for i in range(model.mapping_layers)}
    for target, source in dense.items():
        out[f"{target}/weight"] = _array(d[f"{source}.weight"].t())
        out[f"{target}/bias"] = _array(d[f"{source}.bias"])
    options = {"num_channels": 3, "resolution": model.resolution, "label_size": model.labels}
    options |= {"architecture": model.discriminator_architecture, "fmap_base": 64, "fmap_max": 12}
    return _network("D", "D_stylegan2", options, out)


def _network(
    name: str,
    function: str,
    options: Mapping[str, Any],
    variables: Mapping[str, np.ndarray],
    components: Mapping[str, NewObject] | None = None,
    version: int = 4,
) -> NewObject:
    state = {
        "version": version,
        "name": name,
        "static_kwargs": dict(options),
        "components": dict(components or {}),
        "build_module_src": SOURCE_CODE,
        "build_func_name": function,
        "variables": list(variables.items()),
    }
    return NewObject(TF_NETWORK, state=state)


def write_tensorflow(
    path: Path, model: Model, *, protocol: int = 4, numpy_names: NumpyNames = "numpy.core", fortran: bool = False
) -> Path:
    """The original TensorFlow `.pkl`: a tuple of G, D and Gs."""
    g = tensorflow_generator(averaging(model))
    content = (g, tensorflow_discriminator(model), tensorflow_generator(model, fortran=fortran))
    return write_pickle(path, content, protocol, numpy_names)


def write_stylegan1(path: Path) -> Path:
    """A StyleGAN1 network in TensorFlow's pickle."""
    values = {
        "lod": np.float32(0).reshape(()),
        "4x4/Const/const": np.ones((1, 4, 4, 4), np.float32),
        "4x4/Const/Noise/weight": np.ones(4, np.float32),
        "4x4/Const/StyleMod/weight": np.ones((8, 8), np.float32),
        "4x4/Conv/weight": np.ones((3, 3, 4, 4), np.float32),
        "4x4/Conv/StyleMod/bias": np.ones(8, np.float32),
        "ToRGB_lod0/weight": np.ones((1, 1, 4, 3), np.float32),
    }
    parts = {
        "mapping": _network("G_mapping", "G_mapping", {}, {"Dense0/weight": np.ones((8, 8), np.float32)}, version=3),
        "synthesis": _network("G_synthesis", "G_synthesis", {}, values, version=3),
    }
    own = {"dlatent_avg": np.zeros(8, np.float32)}
    g = _network("Gs", "G_style", {"resolution": 8, "label_size": 0}, own, parts, version=3)
    return write_pickle(path, (g, g, g), 2)


# --- GenForce --------------------------------------------------------------------------------------------------------


def genforce_generator(model: Model) -> Weights:
    """Generator under GenForce's names, in TensorFlow's orientation."""
    g = model.generator
    out: Weights = {}
    for i in range(model.mapping_layers):
        out[f"mapping.dense{i}.weight"] = g[f"mapping.fc{i}.weight"]
        out[f"mapping.dense{i}.bias"] = g[f"mapping.fc{i}.bias"]
    out["truncation.w_avg"] = g["mapping.w_avg"]
    out["synthesis.early_layer.const"] = g["synthesis.b4.const"][None]

    def common(target: str, source: str, *, flip: bool = False) -> None:
        weight = g[f"{source}.weight"]
        out[f"{target}.weight"] = weight.flip(2, 3) if flip else weight
        out[f"{target}.bias"] = g[f"{source}.bias"]
        out[f"{target}.style.weight"] = g[f"{source}.affine.weight"]
        out[f"{target}.style.bias"] = g[f"{source}.affine.bias"] - 1

    layers = ["b4.conv1", *(f"b{r}.conv{i}" for r in model.resolutions[1:] for i in (0, 1))]
    for number, place in enumerate(layers):
        source, target = f"synthesis.{place}", f"synthesis.layer{number}"
        common(target, source, flip=number % 2 == 1)
        out[f"{target}.noise_strength"] = g[f"{source}.noise_strength"]
        out[f"{target}.noise"] = g[f"{source}.noise_const"][None, None]
        if number % 2:
            out[f"{target}.filter.kernel"] = g[f"{source}.resample_filter"][None, None] * 4
    for k, r in enumerate(model.resolutions):
        common(f"synthesis.output{k}", f"synthesis.b{r}.torgb")
    out["synthesis.upsample.kernel"] = g["synthesis.b4.resample_filter"][None, None] * 4
    return out


def write_genforce(path: Path, model: Model, *, zipped: bool = True) -> Path:
    """GenForce's `.pth`."""
    content = {
        "generator": state_dict(genforce_generator(averaging(model))),
        "discriminator": OrderedDict({"input0.weight": torch.randn(4, 3, 1, 1), "input0.bias": torch.zeros(4)}),
        "generator_smooth": state_dict(genforce_generator(model)),
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


# --- state dicts under NVIDIA's names --------------------------------------------------------------------------------


def write_state_dict(path: Path, model: Model, *, key: str | None = "G_ema") -> Path:
    """NVIDIA's names in torch's container: under a key, or bare."""
    state = state_dict(model.generator)
    torch.save({key: state} if key else state, path)
    return path


def write_safetensors(path: Path, model: Model, *, names: Literal["nvidia", "rosinality"] = "nvidia") -> Path:
    """Safetensors without a sidecar."""
    if names == "nvidia":
        tensors = model.generator | {f"discriminator.{name}": value for name, value in model.discriminator.items()}
    else:
        tensors = rosinality_generator(model.generator) | {"latent_avg": model.generator["mapping.w_avg"]}
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path)
    return path


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, as the sidecar of native files defines it."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_native(path: Path, model: Model) -> Path:
    """Sisug's own format: NVIDIA's names, and a sidecar with the fingerprint; the file's name ends in .safetensors."""
    path = path.with_suffix(".safetensors")
    write_safetensors(path, model)
    sidecar = {"format": "sisug generator, version 1: safetensors with NVIDIA's StyleGAN2 key names"}
    settings = {"mapping_lr_mul": model.lr_multiplier, "conv_clamp": model.clamp}
    content = {**sidecar, **settings, "fingerprint": fingerprint_of(model.generator)}
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


Writer = Callable[[Path, Model], Path]

FAMILIES: dict[str, Writer] = {
    "ada-3": lambda path, model: write_nvidia(path, model, protocol=3),
    "ada-2": lambda path, model: write_nvidia(path, model, protocol=2),
    "ada-4-numpy2": lambda path, model: write_nvidia(path, model, protocol=4, numpy_names="numpy._core"),
    "ada-5": lambda path, model: write_nvidia(path, model, protocol=5, numpy_names="numpy._core"),
    "ada-cuda": lambda path, model: write_nvidia(path, model, device="cuda:0"),
    "ada-channels-last": lambda path, model: write_nvidia(path, model, Layout(channels_last=True)),
    "ada-frozen": lambda path, model: write_nvidia(path, model, Layout(frozen_layers=True)),
    "ada-no-settings": lambda path, model: write_nvidia(path, model, Layout(settings=False)),
    "stylegan3": lambda path, model: write_nvidia(path, model, STYLEGAN3, protocol=4),
    "stylegan3-no-settings": lambda path, model: write_nvidia(path, model, Layout("stylegan3", settings=False)),
    "rosinality-converted": lambda path, model: write_rosinality(path, model),
    "rosinality-trained": lambda path, model: write_rosinality(path, model, "trained"),
    "rosinality-exported": lambda path, model: write_rosinality(path, model, "exported"),
    "rosinality-module": lambda path, model: write_rosinality(path, model, prefix="module."),
    "rosinality-legacy": lambda path, model: write_rosinality(path, model, zipped=False),
    "rosinality-trained-legacy": lambda path, model: write_rosinality(path, model, "trained", zipped=False),
    "rosinality-no-discriminator": lambda path, model: write_rosinality(path, model, discriminator=False),
    "rosinality-safetensors": lambda path, model: write_safetensors(path, model, names="rosinality"),
    "psp": write_psp,
    "psp-one-mean": lambda path, model: write_psp(path, model, every_layer=False),
    "tensorflow-2": lambda path, model: write_tensorflow(path, model, protocol=2),
    "tensorflow-4": write_tensorflow,
    "tensorflow-numpy2": lambda path, model: write_tensorflow(path, model, numpy_names="numpy._core"),
    "tensorflow-fortran": lambda path, model: write_tensorflow(path, model, fortran=True),
    "genforce": write_genforce,
    "genforce-legacy": lambda path, model: write_genforce(path, model, zipped=False),
    "torch-nvidia": write_state_dict,
    "torch-nvidia-bare": lambda path, model: write_state_dict(path, model, key=None),
    "safetensors": write_safetensors,
    "native": write_native,
}
"""Ways to write a plain model (skip generator, residual discriminator, no labels, no clamp) with all of its tensors."""

WITH_DISCRIMINATOR = tuple(
    name
    for name in FAMILIES
    if name.startswith(("ada", "stylegan3", "rosinality", "tensorflow", "native", "safetensors"))
    and name not in {"rosinality-exported", "rosinality-no-discriminator", "rosinality-safetensors"}
)
