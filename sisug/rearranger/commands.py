"""`sisug rearranger export` (stage 1): from a training checkpoint to the small file that later stages load."""

from __future__ import annotations

from pathlib import Path

from sisug.metrics.record import git_commit
from sisug.rearranger.trained import REMEDY, load_rearranger, read_checkpoint, write_rearranger


def export(checkpoint: Path, out: Path, generator: str | None = None) -> str:
    """Write a trained rearranger and its codebook in half precision, with a record of what they belong to.

    Args:
        checkpoint: ``.ckpt`` file of a run.
        out: ``.safetensors`` file to write; its record lies beside it as ``.json``.
        generator: file or preset in the place of the one that the checkpoint names.

    Returns:
        A line with the file and its size.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another stage.
        ConfigError: ``out`` has another suffix.
    """
    trained = load_rearranger(checkpoint, generator)
    write_rearranger(trained, out, images_seen=images_seen(checkpoint), commit=git_commit())
    return f"{out} ({out.stat().st_size / 1e6:.1f} MB, fp16)"


def images_seen(checkpoint: Path) -> int | None:
    """Images that a run had trained on; None for a file that does not say.

    Args:
        checkpoint: of a run, or an exported file.

    Raises:
        CheckpointError: missing or damaged.
    """
    if checkpoint.suffix != ".ckpt":
        return None
    seen = read_checkpoint(checkpoint, "the checkpoint", REMEDY)["state_dict"].get("images_seen")
    return None if seen is None else int(seen)
