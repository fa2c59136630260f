"""What checkpoints of both stages hold beside the frozen generator, checked before anything is copied from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from sisug.errors import CheckpointError, FingerprintMismatch
from sisug.generators import GeneratorBackbone
from sisug.generators.native import differences, listed

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
    module: LightningModule,
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
