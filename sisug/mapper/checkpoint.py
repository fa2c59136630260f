"""What a mapper's checkpoint must hold (stage 2), checked before anything is copied from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from sisug.errors import CheckpointError, FingerprintMismatch
from sisug.generators import GeneratorBackbone
from sisug.generators.native import differences, listed


def check_mapper_checkpoint(
    checkpoint: Mapping[str, Any], module: LightningModule, generator: GeneratorBackbone
) -> None:
    """Refuse a checkpoint that the module cannot take as a whole.

    Args:
        checkpoint: what Lightning read from the file.
        module: the MapperModule that is to take it.
        generator: the module's frozen generator.

    Raises:
        FingerprintMismatch: it was trained with other generator weights.
        CheckpointError: it is of another kind, or its networks have other names or shapes.
    """
    recorded = checkpoint.get("generator")
    if not isinstance(recorded, Mapping) or "condition" not in checkpoint:
        raise CheckpointError(
            "the checkpoint holds no mapper",
            "it does not say what its mapper reads",
            "give a checkpoint that `sisug fit` wrote with MapperModule",
        )
    if recorded.get("fingerprint") != generator.fingerprint:
        raise FingerprintMismatch(
            f"the checkpoint was trained with the generator {recorded.get('source')!r} "
            f"({str(recorded.get('fingerprint'))[:12]})",
            f"this run has {generator.source!r}, whose weights are others ({generator.fingerprint[:12]})",
            "give that generator by --model.init_args.generator",
        )
    own = {k: v for k, v in module.state_dict().items() if not k.startswith("generator.")}
    found: Mapping[str, Tensor] = checkpoint["state_dict"]
    problems = differences(own, found, side="this run")
    if problems:
        raise CheckpointError(
            "the checkpoint has other networks than this run",
            listed(problems),
            "give the settings it was trained with: config.yaml beside it holds them",
        )
