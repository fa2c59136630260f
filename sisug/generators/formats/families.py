"""From the tree of a file to the generator in it (generators): families are told by the names of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sisug.common.torch_files.arrays import LazyTensor, NumpyArray
from sisug.common.torch_files.pickles import PersistentObject, TensorFlowNetwork
from sisug.errors import CheckpointError
from sisug.generators.formats import genforce, nvidia, rosinality, tensorflow
from sisug.generators.formats.completion import complete
from sisug.generators.formats.containers import SafetensorsTensor, opened
from sisug.generators.formats.labels import checked_label, discriminator_for, generator_for
from sisug.generators.formats.source import Family, Renamed, Source, State, checked_settings

KNOWN = (
    "sisug reads StyleGAN2 generators of NVIDIA (PyTorch and TensorFlow), rosinality, GenForce, pixel2style2pixel and "
    "its own"
)
NOT_AVERAGED = "averaged weights (G_ema, g_ema) were missing: those in training were taken, whose images are worse"
MOST_NETWORKS = 16
MOST_DEPTH = 3
"""Dictionaries within dictionaries in which state dicts are looked for."""


@dataclass
class Found:
    """A generator that was found in a tree, with what belongs to it; nothing of it is read yet."""

    family: Family
    generator: Callable[[str], dict[str, Tensor]]
    discriminator: Callable[[str], dict[str, Tensor] | None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    mean: Tensor | None = None
    notes: tuple[str, ...] = ()
    description: dict[str, Any] = field(default_factory=dict)


def read_source(path: Path, label: int | None = None, *, discriminator: bool = True) -> Source:
    """Read the generator of a file of any family; nothing in the file is run.

    Args:
        path: a file of NVIDIA (PyTorch or TensorFlow), rosinality, pixel2style2pixel, GenForce or sisug.
        label: the class, for a class-conditional generator.
        discriminator: read that too, where there is one.

    Raises:
        CheckpointError: the file is missing, damaged, hostile or no StyleGAN2; a label is missing or out of range.
    """
    where = f"generator file {path}"
    with opened(path) as tree:
        found = locate(tree, where)
        tensors = found.generator(where)
        adversary = found.discriminator(f"discriminator of {path}") if discriminator and found.discriminator else None
    settings = checked_settings(found.settings, where)
    if found.mean is not None:
        tensors["mapping.w_avg"] = found.mean
    embedding = tensors.get("mapping.embed.weight")
    labels = 0 if embedding is None else (embedding.shape[1] if embedding.dim() == 2 else 1)
    chosen = checked_label(label, labels, where)
    notes = list(found.notes)
    if chosen is not None:
        tensors = generator_for(tensors, chosen, where)
        notes.append(f"class {chosen} of {labels}: its embedding is part of the mapping network's first layer now")
    if adversary is not None and "mapping.embed.weight" in adversary:
        adversary = discriminator_for(adversary, chosen or 0, where)
    if adversary is not None and sum(1 for name in adversary if name.endswith("fromrgb.weight")) > 1:
        adversary = None
        notes.append("its discriminator reads the image at every resolution (skip), which sisug's does not: left out")
    constant = tensors.get("synthesis.b4.const")
    if constant is not None and constant.dim() > 1 and constant.shape[-1] != constant.shape[-2]:
        raise CheckpointError(
            f"{where} makes images that are not square",
            f"its constant has {constant.shape[-1]} x {constant.shape[-2]} cells, where sisug's networks have 4 x 4",
            "give a generator of square images",
        )
    notes += complete(tensors, settings["mapping_lr_mul"])
    return Source(found.family, tensors, adversary, settings, labels, tuple(notes), found.description)


def locate(tree: Any, where: str) -> Found:
    """The generator in a tree.

    Raises:
        CheckpointError: there is none; the message says what the file is, as far as that can be told.
    """
    for finder in (_of_tensorflow, _of_nvidia, _of_training_run, _of_state_dicts):
        found = finder(tree, where)
        if found is not None:
            return found
    raise _nothing(tree, where)


def _of_tensorflow(tree: Any, where: str) -> Found | None:
    networks = [part for part in tree if isinstance(part, TensorFlowNetwork)] if isinstance(tree, (tuple, list)) else []
    if isinstance(tree, TensorFlowNetwork):
        networks = [tree]
    if not networks:
        return None
    network = networks[-1]  # (G, D, Gs): the last one is averaged
    state = {name.replace("G_synthesis/", "synthesis/").replace("G_mapping/", "mapping/"): value
             for name, value in tensorflow.variables(network).items()}  # fmt: skip
    if tensorflow.is_stylegan1(state):
        raise _refusal(where, "StyleGAN (the first one, TensorFlow)")
    if "synthesis/4x4/Const/const" not in state:
        raise _refusal(where, "a TensorFlow network other than StyleGAN2's generator")
    kwargs = network.state.get("static_kwargs")
    known = kwargs if isinstance(kwargs, dict) else {}

    def adversary(name: str) -> dict[str, Tensor] | None:
        for other in networks[:-1]:
            variables = tensorflow.variables(other)
            if "Output/weight" in variables:
                if any("Label" in variable or "Mapping" in variable for variable in variables):
                    return None
                return tensorflow.discriminator_tensors(variables, known, name)
        return None

    return Found(
        Family.TENSORFLOW,
        lambda name: tensorflow.generator_tensors(state, known, name),
        adversary,
        tensorflow.settings(network),
    )


def _of_nvidia(tree: Any, where: str) -> Found | None:
    modules = {"G_ema": tree} if isinstance(tree, PersistentObject) else {}
    if isinstance(tree, dict):
        modules = {str(name): part for name, part in tree.items() if isinstance(part, PersistentObject)}
    network = modules.get("G_ema") or modules.get("G")
    if network is None:
        return None
    state = nvidia.module_tensors(network)
    if nvidia.is_stylegan3(state):
        raise _refusal(where, "StyleGAN3 (T or R)")
    if not nvidia.is_nvidia(state):
        raise _refusal(where, f"a network of class {network.class_name[:60]}")
    notes = () if "G_ema" in modules or isinstance(tree, PersistentObject) else (NOT_AVERAGED,)
    flat = "synthesis_kwargs" not in (network.state.get("_init_kwargs") or {})
    adversary = modules.get("D")
    return Found(
        Family.STYLEGAN3 if flat else Family.NVIDIA,
        lambda name: nvidia.generator_tensors(state, name),
        (lambda name: nvidia.discriminator_tensors(nvidia.module_tensors(adversary), name)) if adversary else None,
        nvidia.settings(network, where),
        notes=notes,
    )


def _of_training_run(tree: Any, where: str) -> Found | None:
    """A checkpoint of `make train-generator`: its averaged weights, which validation and samples used too."""
    if not isinstance(tree, dict):
        return None
    settings, provenance = tree.get("generator_settings"), tree.get("provenance")
    if not isinstance(settings, dict) or not isinstance(provenance, dict) or "state_dict" not in tree:
        return None
    state = _tensors_of(tree["state_dict"])
    trained = _under(state, "generator.")
    averaged = {name.replace("/", "."): value for name, value in _under(state, "average.average:").items()}
    description = {**provenance, "measured": tree.get("measured", {}), "weights": "exponential moving average"}
    return Found(
        Family.SISUG,
        lambda name: nvidia.generator_tensors(trained | averaged, name),
        lambda name: nvidia.discriminator_tensors(_under(state, "discriminator."), name),
        settings,
        description=description,
    )


SIGNATURES = {
    "synthesis.b4.const": (Family.NVIDIA_KEYS, nvidia.is_nvidia, nvidia.generator_tensors),
    "input.input": (Family.ROSINALITY, rosinality.is_rosinality, rosinality.generator_tensors),
    "synthesis.early_layer.const": (Family.GENFORCE, genforce.is_genforce, genforce.generator_tensors),
}
"""A tensor that only this family's generators have, and how to read them."""

ADVERSARIES = {
    "b4.fc.weight": nvidia.discriminator_tensors,
    "final_linear.1.weight": rosinality.discriminator_tensors,
}


def _of_state_dicts(tree: Any, where: str) -> Found | None:
    choices: list[tuple[tuple[bool, int], str, dict[str, Any]]] = []
    named = False
    adversaries: list[tuple[str, State]] = []
    for number, (place, state) in enumerate(_state_dicts(tree)):
        for name in state:
            for mark in SIGNATURES:
                if name == mark or name.endswith(f".{mark}"):
                    prefix = name.removesuffix(mark)
                    averaged = any(word in f"{place}.{prefix}".lower() for word in ("ema", "smooth", "average"))
                    named = named or f"{place}.{prefix}".strip(".") in ("g", "G", "generator")
                    choices.append(((not averaged, number), mark, _under(state, prefix)))
            for mark in ADVERSARIES:
                if name == mark or name.endswith(f".{mark}"):
                    adversaries.append((mark, _under(state, name.removesuffix(mark))))
            if len(choices) + len(adversaries) > MOST_NETWORKS:
                raise CheckpointError(f"{where} holds too many networks", "files hold a few", "get the file again")
    if not choices:
        return None
    (not_averaged, _), mark, chosen = min(choices, key=lambda choice: choice[0])
    family, fits, read = SIGNATURES[mark]
    state = {name: value for name, value in chosen.items() if not name.startswith("discriminator.")}
    if nvidia.is_stylegan3(state):
        raise _refusal(where, "StyleGAN3 (T or R)")
    if not fits(state):
        raise CheckpointError(f"{where} is incomplete", "its mapping network is missing", "give a whole generator")
    if isinstance(tree, dict) and any(str(name).startswith("decoder.") for name in _tensors_of(tree.get("state_dict"))):
        family = Family.PSP
    reader = ADVERSARIES[adversaries[0][0]] if adversaries else None
    return Found(
        family,
        lambda name: read(state, name),
        (lambda name: reader(adversaries[0][1], name)) if reader is not None else None,
        mean=_mean_style(tree, where),
        notes=(NOT_AVERAGED,) if not_averaged and named else (),
    )


def _mean_style(tree: Any, where: str) -> Tensor | None:
    """`latent_avg`, which rosinality's converters and pixel2style2pixel store beside the weights."""
    found = tree.get("latent_avg") if isinstance(tree, dict) else None
    if not isinstance(found, (LazyTensor, NumpyArray, SafetensorsTensor)):
        return None
    mean = Renamed({"latent_avg": found}, where).take("latent_avg", "mapping.w_avg")
    if mean.dim() == 0 or not mean.numel():
        raise CheckpointError(f"{where}: latent_avg is no style", "it has no elements", "give another file")
    rows = mean.reshape(-1, mean.shape[-1])
    return rows[0].clone() if bool(rows.eq(rows[0]).all()) else None


def _state_dicts(
    tree: Any, place: str = "", depth: int = 0, seen: set[int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary in a tree that holds tensors, with where it lies; one that lies in several places once."""
    seen = set() if seen is None else seen
    if not isinstance(tree, dict) or depth > MOST_DEPTH or id(tree) in seen:
        return
    seen.add(id(tree))
    tensors = _tensors_of(tree)
    if tensors:
        yield place, tensors
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _state_dicts(part, f"{place}.{name}", depth + 1, seen)


def _tensors_of(tree: Any) -> dict[str, Any]:
    kinds = (LazyTensor, NumpyArray, SafetensorsTensor)
    return {str(k): v for k, v in tree.items() if isinstance(v, kinds)} if isinstance(tree, dict) else {}


def _under(state: State, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _nothing(tree: Any, where: str) -> CheckpointError:
    names = [name for _, state in _state_dicts(tree) for name in state]
    if isinstance(tree, dict) and "pytorch-lightning_version" in tree:
        return _refusal(where, "a training checkpoint, but no run of GeneratorModule wrote it")
    if nvidia.is_stylegan3(names):
        return _refusal(where, "StyleGAN3 (T or R)")
    kinds = {
        "progression.": "StyleGAN (the first one, PyTorch)",
        "model.diffusion_model.": "a diffusion model",
        "final_linear.1.weight": "a discriminator without its generator",
        "b4.fc.weight": "a discriminator without its generator",
    }
    for mark, what in kinds.items():
        if any(mark in name for name in names):
            return _refusal(where, what)
    if names:
        return _refusal(where, f"something else: its {len(names)} tensors have names like {sorted(names)[0][:60]}")
    return _refusal(where, "a file without a network's weights")


def _refusal(where: str, what: str) -> CheckpointError:
    return CheckpointError(f"{where} holds no StyleGAN2 generator", f"it is {what}", f"give another file: {KNOWN}")
