"""A trained rearranger with what it belongs to (result of stage 1): read from a run's checkpoint, or from a small file.

The small file is safetensors in half precision with a JSON record beside it, as generators and judges are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sisug.common.network_file import read_network_file, write_network_file
from sisug.common.state_dicts import differences, listed, part_of
from sisug.errors import CheckpointError
from sisug.generators import GeneratorBackbone, GeneratorReference, generator_record
from sisug.generators.checkpoints import averaged, find_generator, read_checkpoint
from sisug.proxies.codebook import Codebook
from sisug.rearranger.multiscale import multiscale_rearranger
from sisug.rearranger.network import Rearranger
from sisug.rearranger.pipeline import RearrangementPipeline

ASSETS = Path(__file__).parent / "assets"

SHIPPED: Mapping[str, Path] = {"avatars": ASSETS / "avatars-64.safetensors", "faces": ASSETS / "faces-1024.safetensors"}
"""The rearrangers that come with the project, by the name of their generator."""

FORMAT = "sisug-rearranger-1"

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "attention": ("width", "heads", "key_channels", "bands", "refinement"),
    "multiscale": ("stages", "coarse_below", "widths", "blocks", "context_widths", "key_channels"),
}
"""Of a module's arguments those that shape the network, by its kind: attention at the split, or at several stages."""

COMMON = ("split", "clusters", "normalisation", "truncation")
"""Those that shape the codebook or say which samples a network learnt from."""

REMEDY = "give a checkpoint of `make train-rearranger`, a file of `sisug rearranger export`, or the name 'avatars'"


@dataclass(frozen=True)
class TrainedRearranger:
    """What stage 2 and synthesis build on: all frozen.

    Args:
        generator: that it lays out.
        codebook: vocabulary of its masks.
        network: the rearranger, with averaged weights.
        settings: those of ``COMMON``, ``network``, and those of ``SETTINGS`` for this kind of network.
        source: file that it came from.
    """

    generator: GeneratorBackbone
    codebook: Codebook
    network: nn.Module
    settings: Mapping[str, Any]
    source: str

    @property
    def truncation(self) -> float:
        """Of the samples that it learnt from."""
        return float(self.settings["truncation"])

    @property
    def pipeline(self) -> RearrangementPipeline:
        """Generator, codebook and network as one computation."""
        return RearrangementPipeline(self.generator, self.codebook, self.network)


def load_rearranger(
    path_or_preset: str | Path, generator: GeneratorReference | Path | None = None
) -> TrainedRearranger:
    """Read a trained rearranger and its generator, on the CPU.

    Args:
        path_or_preset: a run's checkpoint, a file of ``write_rearranger``, or the name of one that comes with sisug.
        generator: preset, file, class or object to take in the place of the generator that the file names: for one
            that has been moved, or whose class is no part of sisug.

    Raises:
        CheckpointError: a file is missing, damaged or holds something else; or it names code that is no part of sisug.
        FingerprintMismatch: the generator's weights are others than those that it was trained with.
    """
    path = SHIPPED.get(str(path_or_preset), Path(path_or_preset))
    settings, tensors, record = _read_checkpoint(path) if path.suffix == ".ckpt" else _read_file(path)
    return assemble(settings, tensors, find_generator(record, settings["split"], generator, path), path)


def assemble(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], generator: GeneratorBackbone, path: Path
) -> TrainedRearranger:
    """A trained rearranger of its parts.

    Args:
        settings: of ``TrainedRearranger``.
        tensors: ``codebook.*`` and ``rearranger.*``.
        generator: that it was trained with.
        path: file that they came from.

    Raises:
        CheckpointError: the parts do not fit together, or the codebook was never fitted.
    """
    try:
        codebook = Codebook(settings["clusters"], generator.feature_channels, settings["normalisation"])
        shape = {name: settings[name] for name in SETTINGS[settings.get("network", "attention")]}
        network: nn.Module
        if "stages" in shape:
            network = multiscale_rearranger(generator, settings["clusters"], **shape)
        else:
            network = Rearranger(generator.feature_channels, settings["clusters"], generator.split, **shape)
    except (KeyError, TypeError, RuntimeError) as error:
        raise _unusable(path, f"its settings make no network: {error}") from error
    for part, name in ((codebook, "codebook."), (network, "rearranger.")):
        found = part_of(tensors, name)
        problems = differences(part.state_dict(), found, side="its settings say")
        if problems:
            raise _unusable(path, listed(problems))
        part.load_state_dict({key: value.to(part.state_dict()[key].dtype) for key, value in found.items()})
        part.requires_grad_(False).eval()
    if not codebook.is_fitted:
        raise _unusable(path, "its codebook has no centroids: training had not begun")
    network.to(memory_format=torch.channels_last)
    return TrainedRearranger(generator, codebook, network, dict(settings), str(path))


def write_rearranger(trained: TrainedRearranger, path: Path, **report: Any) -> None:
    """Write a rearranger in half precision with its record, each under its name only when it is complete.

    Args:
        trained: to write.
        path: the ``.safetensors`` file; the record lies beside it as ``.json``.
        report: how it was trained and measured, for readers; JSON values.

    Raises:
        ConfigError: another suffix.
    """
    record = {"settings": dict(trained.settings), "generator": reference(trained)} | report
    write_network_file(path, FORMAT, tensors_of(trained), record, exact=("codebook.",))


def tensors_of(trained: TrainedRearranger) -> dict[str, Tensor]:
    """Tensors of ``assemble``."""
    parts = {"codebook": trained.codebook, "rearranger": trained.network}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def reference(trained: TrainedRearranger) -> dict[str, Any]:
    """How files of later stages name the generator."""
    return generator_record(trained.generator)


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Mapping[str, Any]]:
    content = read_checkpoint(path, "the rearranger", REMEDY)
    arguments, state = content.get("hyper_parameters", {}), content.get("state_dict", {})
    kinds = [kind for kind, names in SETTINGS.items() if {"clusters", *names} <= set(arguments)]
    if "generator" not in content or not kinds:
        raise _unusable(path, "it is a checkpoint of another stage")
    tensors = {name: value for name, value in state.items() if name.startswith(("codebook.", "rearranger."))}
    return (
        {"network": kinds[0]} | {name: arguments.get(name) for name in (*COMMON, *SETTINGS[kinds[0]])},
        tensors | averaged(state, "rearranger"),
        content["generator"],
    )


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Mapping[str, Any]]:
    tensors, record = read_network_file(path, FORMAT, ("settings", "generator"), "the rearranger", REMEDY)
    return dict(record["settings"]), tensors, record["generator"]


def _unusable(path: Path, cause: str) -> CheckpointError:
    return CheckpointError(f"the rearranger {path} cannot be used", cause, REMEDY)
