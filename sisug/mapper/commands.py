"""`sisug mapper export` (stage 2): from a training checkpoint to the small file that `sisug generate` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sisug.common.provenance import git_commit
from sisug.generators.checkpoints import images_seen
from sisug.mapper.trained import REMEDY, load_mapper, with_shipped, write_mapper


def export(
    checkpoint: Path,
    out: Path,
    generator: str | dict[str, Any] | None = None,
    condition: str | dict[str, Any] | None = None,
    rearranger: str | None = None,
) -> str:
    """Write a trained mapper, its rearranger and its codebook in half precision, with a record of what it reads.

    Args:
        checkpoint: ``.ckpt`` file of a run.
        out: ``.safetensors`` file to write; its record lies beside it as ``.json``.
        generator: preset, file or class in the place of the generator that the checkpoint names.
        condition: the condition's class, where it is no part of sisug.
        rearranger: name of a rearranger that ships, to refer to it in place of holding one: of the same codebook, such
            as the same run's at a later time.

    Returns:
        A line with the file and its size.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another stage, or its codebook is another one.
        ConfigError: ``out`` has another suffix.
    """
    trained = load_mapper(checkpoint, generator, condition)
    if rearranger is not None:
        trained = with_shipped(trained, rearranger)
    write_mapper(trained, out, images_seen=images_seen(checkpoint, REMEDY), commit=git_commit())
    return f"{out} ({out.stat().st_size / 1e6:.1f} MB, fp16): reads {trained.condition.name}"
