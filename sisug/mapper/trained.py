"""A trained mapper with all that it needs (result of stage 2): read from a run's checkpoint, or from a small file.

Both hold the rearranger and the codebook too, so that a mapper needs nothing but its generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sisug.common.fingerprint import fingerprint
from sisug.common.network_file import read_network_file, write_network_file
from sisug.common.state_dicts import differences, listed, part_of
from sisug.conditions.condition import Condition, Encoded
from sisug.conditions.registry import condition_from_dict
from sisug.errors import CheckpointError, DataError, FingerprintMismatch
from sisug.generators import GeneratorReference
from sisug.generators.checkpoints import averaged, find_generator, read_checkpoint
from sisug.mapper.network import Mapper
from sisug.rearranger.trained import SHIPPED as SHIPPED_REARRANGERS
from sisug.rearranger.trained import TrainedRearranger, assemble, load_rearranger, reference, tensors_of
from sisug.types import ProxyWeights

ASSETS = Path(__file__).parent / "assets"

SHIPPED: Mapping[str, Path] = {path.stem: path for path in sorted(ASSETS.glob("*.safetensors"))}
"""The mappers that come with the project: avatars-seg, and so on."""

FORMAT = "sisug-mapper-1"

REMEDY = "give a checkpoint of `make train-mapper`, a file of `sisug mapper export`, or one that ships: " + (
    ", ".join(SHIPPED) or "none does"
)


@dataclass(frozen=True)
class TrainedMapper:
    """What synthesis needs: all frozen.

    Args:
        rearranger: with its generator and codebook.
        network: the mapper, with averaged weights.
        condition: what it reads.
        width: of the mapper.
        lesson: what its labels were, see ``sisug.mapper.teaching.Lesson``; empty where there were none.
        source: file that it came from.
        rearranger_name: of the rearranger, where it is one that ships, untuned; None for one of the mapper's own.
    """

    rearranger: TrainedRearranger
    network: Mapper
    condition: Condition
    width: int
    lesson: Mapping[str, Any]
    source: str
    rearranger_name: str | None = None

    @torch.no_grad()
    def layouts(self, encoded: Encoded) -> ProxyWeights:
        """Layouts of encoded conditions: how probable each label is in each cell.

        Args:
            encoded: conditions, at the size that the network takes.
        """
        logits: Tensor = self.network(encoded)
        return logits.softmax(dim=1)


def load_mapper(
    path_or_name: str | Path,
    generator: GeneratorReference | Path | None = None,
    condition: str | dict[str, Any] | None = None,
) -> TrainedMapper:
    """Read a trained mapper, its rearranger and its generator, on the CPU.

    Args:
        path_or_name: a run's checkpoint, a file of ``write_mapper``, or the name of one that comes with sisug.
        generator: preset, file, class or object to take in the place of the generator that the file names: for one
            that has been moved, or whose class is no part of sisug.
        condition: the condition's class, by its full name, or by `class_path` and `init_args`, where it is no part of
            sisug.

    Raises:
        CheckpointError: a file is missing, damaged or holds something else; or it names code that is no part of sisug.
        FingerprintMismatch: the generator's weights are others than those that it was trained with.
    """
    path = SHIPPED.get(str(path_or_name), Path(path_or_name))
    tensors, record = _read_run(path) if path.suffix == ".ckpt" else _read_file(path)
    settings, name = record["rearranger"], record.get("rearranger_name")
    if name is not None and path.suffix != ".ckpt":
        rearranger = load_rearranger(name, generator)
        if fingerprint(tensors_of(rearranger)) != record.get("rearranger_fingerprint"):
            raise FingerprintMismatch(
                f"the mapper {path} belongs to another rearranger {name!r} than the one that ships",
                "one of the two files is of another version of sisug",
                "take both of one version, or train the mapper again",
            )
        found = rearranger.generator
    else:
        found = find_generator(record["generator"], settings["split"], generator, path)
        rearranger = assemble(settings, tensors, found, path)
    try:
        reads = condition_from_dict(record["condition"], condition, path)
        network = Mapper(
            reads.channels,
            settings["clusters"],
            int(record.get("size") or found.resolution),
            found.split,
            width=int(record["width"]),
        )
    except (DataError, KeyError, TypeError, RuntimeError) as error:
        raise _unusable(path, f"its record makes no mapper: {error}") from error
    weights = part_of(tensors, "mapper.")
    problems = differences(network.state_dict(), weights, side="its record says")
    if problems:
        raise _unusable(path, listed(problems))
    network.load_state_dict(weights)
    network.to(memory_format=torch.channels_last).requires_grad_(False).eval()
    return TrainedMapper(rearranger, network, reads, int(record["width"]), record.get("lesson") or {}, str(path), name)


def with_shipped(trained: TrainedMapper, name: str) -> TrainedMapper:
    """A mapper with a rearranger that ships in place of its own.

    Args:
        trained: the mapper.
        name: of the rearranger.

    Raises:
        CheckpointError: there is none of that name, or its codebook is another one: its clusters mean other parts.
    """
    if name not in SHIPPED_REARRANGERS:
        known = ", ".join(SHIPPED_REARRANGERS)
        raise CheckpointError(f"there is no rearranger {name!r} that ships", f"there are: {known}", "name one of them")
    found = load_rearranger(name, trained.rearranger.generator)
    if fingerprint(found.codebook.state_dict()) != fingerprint(trained.rearranger.codebook.state_dict()):
        raise CheckpointError(
            f"the mapper {trained.source} cannot go with the rearranger {name!r}",
            "it was trained for another codebook, whose clusters mean other parts",
            "train the mapper with this rearranger",
        )
    return replace(trained, rearranger=found, rearranger_name=name)


def write_mapper(trained: TrainedMapper, path: Path, **report: Any) -> None:
    """Write a mapper and its rearranger in half precision with their record, whole or not at all.

    Args:
        trained: to write.
        path: the ``.safetensors`` file; the record lies beside it as ``.json``.
        report: how it was trained and measured, for readers; JSON values.

    Raises:
        ConfigError: another suffix.
    """
    record = {
        "condition": trained.condition.to_dict(),
        "width": trained.width,
        "size": trained.network.size,
        "lesson": dict(trained.lesson),
        "rearranger": dict(trained.rearranger.settings),
        "generator": reference(trained.rearranger),
    }
    tensors = tensors_of(trained.rearranger)
    if trained.rearranger_name is not None:  # it lies in the package, once for all mappers
        record |= {"rearranger_name": trained.rearranger_name, "rearranger_fingerprint": fingerprint(tensors)}
        tensors = {}
    tensors |= {f"mapper.{name}": value for name, value in trained.network.state_dict().items()}
    write_network_file(path, FORMAT, tensors, record | report, exact=("codebook.",))


def _read_run(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    content = read_checkpoint(path, "the mapper", REMEDY)
    missing = {"condition", "rearranger", "generator", "hyper_parameters", "state_dict"} - content.keys()
    if missing:
        raise _unusable(path, "it is a checkpoint of another stage")
    state = content["state_dict"]
    tensors = {k: v for k, v in state.items() if k.startswith(("codebook.", "rearranger.", "mapper."))}
    learnt = averaged(state, "mapper") | averaged(state, "rearranger", "rearranger_average")
    given = content["hyper_parameters"]
    untuned = not given.get("rearranger_learning_rate")
    name = given.get("rearranger") if untuned and given.get("rearranger") in SHIPPED_REARRANGERS else None
    return tensors | learnt, content | {"width": given["width"], "size": given.get("size"), "rearranger_name": name}


def _read_file(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    needed = ("condition", "width", "rearranger", "generator")
    return read_network_file(path, FORMAT, needed, "the mapper", REMEDY)


def _unusable(path: Path, cause: str) -> CheckpointError:
    return CheckpointError(f"the mapper {path} cannot be used", cause, REMEDY)
