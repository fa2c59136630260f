"""Class-conditional networks for one label (generators): the label's embedding is a constant, so it can be part of the
weights, and what remains is an unconditional network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sisug.errors import CheckpointError
from sisug.generators.layers import leaky_relu, normalise_second_moment


class LabelError(CheckpointError):
    """A class-conditional generator needs a label, or another one."""


def checked_label(label: int | None, num_labels: int, where: str) -> int | None:
    """The label, where there must be one.

    Raises:
        LabelError: it is missing or out of range.
        CheckpointError: the network has no labels.
    """
    if num_labels == 0:
        if label is None:
            return None
        raise CheckpointError(f"{where} has no classes, and label {label} was asked for", "it is unconditional",
                              "leave the label out")  # fmt: skip
    if label is None or not 0 <= label < num_labels:
        asked = "no label was given" if label is None else f"label {label} was asked for"
        raise LabelError(
            f"{where} is class-conditional with {num_labels} classes, and {asked}",
            "sisug lays out images of one class at a time",
            f"choose one of 0 to {num_labels - 1}: `sisug generator convert FILE OUT.safetensors --label 0` writes a "
            "file for one class, which every command takes; in Python load_generator(FILE, label=0)",
        )
    return label


def embedded(tensors: Mapping[str, Tensor], label: int) -> Tensor:
    """Embedding of a label, of unit mean square (StyleGAN2-ADA's mapping network)."""
    weight = tensors["mapping.embed.weight"]
    return normalise_second_moment(weight[:, label] / math.sqrt(weight.shape[1]) + tensors["mapping.embed.bias"])


def generator_for(tensors: Mapping[str, Tensor], label: int, where: str) -> dict[str, Tensor]:
    """An unconditional generator that makes the images of one label.

    The first layer sees latent and embedding side by side; the embedding's share goes into its bias.

    Args:
        tensors: of the class-conditional generator, NVIDIA's names.
        label: the class.
        where: what to call them in messages.

    Raises:
        CheckpointError: sizes do not fit.
    """
    out = {name: value for name, value in tensors.items() if not name.startswith("mapping.embed.")}
    try:
        y = embedded(tensors, label)
        weight = tensors["mapping.fc0.weight"]
        both, size = weight.shape[1], weight.shape[1] - len(y)
        if size <= 0:
            raise RuntimeError("no latent beside the label")
        # Equalised layers divide by the root of their inputs, of which there are fewer now.
        out["mapping.fc0.weight"] = (weight[:, :size] * math.sqrt(size / both)).contiguous()
        out["mapping.fc0.bias"] = tensors["mapping.fc0.bias"] + weight[:, size:] @ y / math.sqrt(both)
    except (KeyError, RuntimeError, IndexError) as error:
        raise _unfit(where, error) from error
    return out


def discriminator_for(tensors: Mapping[str, Tensor], label: int, where: str) -> dict[str, Tensor]:
    """An unconditional discriminator that judges images as being of one label: the projection becomes its last layer.

    Args:
        tensors: of the class-conditional discriminator, NVIDIA's names.
        label: the class.
        where: what to call them in messages.

    Raises:
        CheckpointError: sizes do not fit.
    """
    out = {name: value for name, value in tensors.items() if not name.startswith("mapping.")}
    try:
        x = embedded(tensors, label)
        layers = sum(1 for name in tensors if re.fullmatch(r"mapping\.fc\d{1,5}\.weight", name))
        for layer in range(layers):
            weight, bias = tensors[f"mapping.fc{layer}.weight"], tensors[f"mapping.fc{layer}.bias"]
            x = leaky_relu(weight @ x * (0.01 / math.sqrt(weight.shape[1])) + bias * 0.01)
        x = x / math.sqrt(len(x))
        out["b4.out.weight"] = (x @ tensors["b4.out.weight"])[None]
        out["b4.out.bias"] = torch.dot(x, tensors["b4.out.bias"])[None]
    except (KeyError, RuntimeError, IndexError) as error:
        raise _unfit(where, error) from error
    return out


def _unfit(where: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{where}: its layers for labels do not fit",
        str(error).splitlines()[0],
        "give the file as its trainer wrote it",
    )
