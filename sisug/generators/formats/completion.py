"""What a file may lack and every generator needs (generators): filters, noise constants, the mean style."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sisug.common.atomic_file import atomic_write
from sisug.common.cache_folder import cache_folder
from sisug.errors import CheckpointError, SisugError
from sisug.generators.layers import fir_kernel, leaky_relu

logger = logging.getLogger(__name__)

MEAN_SAMPLES = 10_000
SEED = 0


def complete(tensors: dict[str, Tensor], mapping_lr_mul: float) -> tuple[str, ...]:
    """Add what is missing, and say so.

    Args:
        tensors: of an unconditional generator under NVIDIA's names; gets what it lacks.
        mapping_lr_mul: learning-rate multiplier of the mapping network, by which its weights are stored larger.

    Returns:
        A line for each thing that was missing.
    """
    notes = []
    blocks = sorted({int(m[1]) for name in tensors if (m := re.match(r"synthesis\.b(\d{1,5})\.", name))})
    layers = [f"synthesis.b{r}.{conv}" for r in blocks for conv in ("conv0", "conv1")]
    layers = [layer for layer in layers if f"{layer}.weight" in tensors]

    silent = [layer for layer in layers if f"{layer}.noise_strength" not in tensors]
    for layer in silent:
        tensors[f"{layer}.noise_strength"] = torch.zeros(())
    if silent:
        notes.append(f"{len(silent)} layers have no noise: its strength is 0")

    lacking = [layer for layer in layers if f"{layer}.noise_const" not in tensors]
    sizes = [_resolution(layer) for layer in layers]
    if lacking:
        random = np.random.default_rng(SEED)
        for layer, size in zip(layers, sizes, strict=True):  # all, so that each is the same whatever else is missing
            drawn = random.standard_normal((size, size), dtype=np.float32)
            if layer in lacking:
                tensors[f"{layer}.noise_const"] = torch.from_numpy(drawn)
        notes.append(f"noise constants of {len(lacking)} layers were missing: drawn with seed {SEED}")

    filters = [*layers, *(f"synthesis.b{r}" for r in blocks)]
    filters += [f"synthesis.b{r}.skip" for r in blocks if f"synthesis.b{r}.skip.weight" in tensors]
    without = [name for name in filters if f"{name}.resample_filter" not in tensors]
    for name in without:
        tensors[f"{name}.resample_filter"] = fir_kernel()
    if without:
        notes.append(f"{len(without)} resampling filters were missing: [1, 3, 3, 1]")

    if "mapping.w_avg" not in tensors:
        tensors["mapping.w_avg"] = mean_style(tensors, mapping_lr_mul)
        notes.append(f"the mean style (w_avg, latent_avg) was missing: the mean of {MEAN_SAMPLES:,} samples")
    return tuple(notes)


def _resolution(layer: str) -> int:
    found = re.search(r"\.b(\d{1,5})\.", layer)
    assert found is not None
    size = int(found[1])
    if size > 4096:
        raise CheckpointError(
            f"a block of {size} px", "StyleGAN2 goes to 1024", "give the file as its trainer wrote it"
        )
    return size


def mean_style(tensors: Mapping[str, Tensor], mapping_lr_mul: float) -> Tensor:
    """Mean of the styles of 10,000 seeded latents, kept in the cache folder.

    In float64 with numpy's generator, so that every machine gets the same numbers.

    Args:
        tensors: `mapping.fc*` among them.
        mapping_lr_mul: their learning-rate multiplier.

    Raises:
        CheckpointError: the layers do not fit each other.
    """
    layers = sum(1 for name in tensors if re.fullmatch(r"mapping\.fc\d{1,5}\.weight", name))
    names = [f"mapping.fc{i}.{part}" for i in range(layers) for part in ("weight", "bias")]
    try:
        digest = hashlib.sha256(f"{MEAN_SAMPLES} {SEED} {mapping_lr_mul}".encode())
        for name in names:
            digest.update(f"{tuple(tensors[name].shape)}".encode())
            digest.update(tensors[name].numpy().tobytes())
        file = cache_folder() / "mean-styles" / f"{digest.hexdigest()[:32]}.safetensors"
        try:
            return load_file(file)["w_avg"]
        except (OSError, SafetensorError, KeyError):
            pass  # not there yet, or of an interrupted run on a strange file system
        z = np.random.default_rng(SEED).standard_normal((MEAN_SAMPLES, tensors["mapping.fc0.weight"].shape[1]))
        x = torch.from_numpy(z)
        x = x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
        for i in range(layers):
            weight = tensors[f"mapping.fc{i}.weight"].double()
            gain = mapping_lr_mul / math.sqrt(weight.shape[1])
            x = leaky_relu(x @ (weight * gain).t() + tensors[f"mapping.fc{i}.bias"].double() * mapping_lr_mul)
    except (KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            "the mapping network does not fit together", str(error).splitlines()[0], "give another file"
        ) from error
    mean = x.mean(dim=0).float()
    try:
        with atomic_write(file) as out:
            out.write(save({"w_avg": mean}))
    except (OSError, SisugError) as error:
        logger.info("The mean style could not be kept in %s (%s); it is computed again next time.", file, error)
    return mean
