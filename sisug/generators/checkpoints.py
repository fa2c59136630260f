"""Checkpoints of both stages: what they hold beside the frozen generator, checked before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sisug.common.state_dicts import differences, listed, part_of
from sisug.common.torch_files.data import load_run
from sisug.errors import CheckpointError, FingerprintMismatch
from sisug.generators.backbone import GeneratorBackbone
from sisug.generators.loading import GeneratorReference, recorded_generator

NAMED = "it does not name the generator that it belongs to"
"""Why a checkpoint without a generator's fingerprint is refused."""


def without_generator(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a module, without those of its frozen generator, which checkpoints leave out."""
    return {name: value for name, value in state.items() if not name.startswith("generator.")}


def generator_may_be_missing(module: nn.Module, keys: Any) -> None:
    """Hook of `load_state_dict`: absence of the generator's weights is no error; that of any other is."""
    keys.missing_keys[:] = [name for name in keys.missing_keys if not name.startswith("generator.")]


def check_checkpoint(
    checkpoint: Mapping[str, Any],
    module: nn.Module,
    generator: GeneratorBackbone,
    *,
    holds: str,
    also: Mapping[str, str] | None = None,
) -> None:
    """Refuse a checkpoint that the module cannot take as a whole.

    Args:
        checkpoint: what Lightning read from the file.
        module: that is to take it.
        generator: the module's frozen generator.
        holds: what it should hold, for messages.
        also: further entries that it must have, and what the lack of each means.

    Raises:
        FingerprintMismatch: it was trained with other generator weights.
        CheckpointError: it is of another kind, or its networks have other names or shapes.
    """
    recorded = checkpoint.get("generator")
    named = isinstance(recorded, Mapping) and "fingerprint" in recorded
    lacks = ([] if named else [NAMED]) + [cause for entry, cause in (also or {}).items() if entry not in checkpoint]
    if lacks:
        raise CheckpointError(
            f"the checkpoint holds no {holds}",
            lacks[0],
            f"give a checkpoint that `sisug fit` wrote with {type(module).__name__}",
        )
    assert recorded is not None
    if recorded["fingerprint"] != generator.fingerprint:
        raise FingerprintMismatch(
            f"the checkpoint was trained with the generator {recorded.get('source')!r} "
            f"({recorded['fingerprint'][:12]})",
            f"this run has {generator.source!r}, whose weights are others ({generator.fingerprint[:12]})",
            "give that generator by --model.init_args.generator",
        )
    problems = differences(without_generator(module.state_dict()), checkpoint["state_dict"], side="this run")
    if problems:
        raise CheckpointError(
            "the checkpoint has other networks than this run",
            listed(problems),
            "give the settings it was trained with: config.yaml beside it holds them",
        )


def averaged(state: Mapping[str, Tensor], network: str, average: str = "average") -> dict[str, Tensor]:
    """The averaged weights in a module's state, by the names of the network's own.

    Args:
        state: of a module.
        network: its name in the module.
        average: name of its average there.
    """
    weights = part_of(state, f"{average}.average:")
    return {f"{network}.{name.replace('/', '.')}": value for name, value in weights.items()}


def read_checkpoint(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """A training checkpoint, as data: nothing in it is run.

    Args:
        path: a ``.ckpt`` file.
        what: it should hold, for messages.
        remedy: for messages.

    Raises:
        CheckpointError: missing or damaged.
        ConfigError: an address.
    """
    content = load_run(path, what, remedy)
    if not isinstance(content.get("generator", {}), Mapping):
        raise CheckpointError(f"{what} {path} cannot be used", NAMED, remedy)
    return content


def find_generator(
    record: Mapping[str, Any], split: int | None, given: GeneratorReference | Path | None, path: Path
) -> GeneratorBackbone:
    """The generator that a file of a later stage names.

    Args:
        record: its source and fingerprint, as the file has them.
        split: resolution of the cut, pixels.
        given: what the user gives in its place; None for nothing.
        path: the file that names it.

    Raises:
        CheckpointError: it is not where it was, or its class is no part of sisug and must be given.
        FingerprintMismatch: its weights are others.
    """
    source = record.get("source")
    try:
        generator = recorded_generator(source, split, given, path)
    except CheckpointError as error:
        if given is not None or isinstance(source, Mapping):
            raise
        raise CheckpointError(
            f"{path} needs the generator {str(source)!r} (fingerprint {str(record.get('fingerprint'))[:12]})",
            str(error),
            "where is it now? Give it with the option generator",
        ) from error
    if generator.fingerprint != record.get("fingerprint"):
        raise FingerprintMismatch(
            f"{path} was trained with the generator {source!r} ({str(record.get('fingerprint'))[:12]})",
            f"{generator.source!r} has other weights ({generator.fingerprint[:12]})",
            "give that generator",
        )
    return generator


def images_seen(checkpoint: Path, remedy: str) -> int | None:
    """Images that a run had trained on; None for a file that does not say.

    Args:
        checkpoint: of a run, or an exported file.
        remedy: for messages.

    Raises:
        CheckpointError: missing or damaged.
    """
    if checkpoint.suffix != ".ckpt":
        return None
    seen = read_checkpoint(checkpoint, "the checkpoint", remedy)["state_dict"].get("images_seen")
    return None if seen is None else int(seen)
