"""Judges on disk: safetensors weights beside a JSON record of what the judge is and how good it was measured to be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sisug.common.network_file import read_network_file, write_network_file
from sisug.errors import CheckpointError, DataError
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.judge import Judge, JudgeFeatures
from sisug.segmentation.network import JudgeNetwork

ASSETS = Path(__file__).parent / "assets"

JUDGES: Mapping[str, Path] = {"avatars": ASSETS / "avatars-judge-unet-v1.safetensors"}
"""The judges that come with the project, by the name of their data."""

FORMAT = "sisug-judge-1"

REMEDY = f"export it again with `sisug judge export`, or use a judge that comes with the project: {', '.join(JUDGES)}"


def load_judge(name_or_path: str | Path = "avatars") -> Judge:
    """Read a judge, with weights in float32 on the CPU.

    Args:
        name_or_path: key of ``JUDGES``, or a ``.safetensors`` file with its JSON record beside it.

    Raises:
        CheckpointError: when a file is missing, damaged or belongs to something else.
        ConfigError: an address.
    """
    path = JUDGES.get(str(name_or_path), Path(name_or_path))
    needed = ("name", "resolution", "architecture", "label_set")
    weights, record = read_network_file(path, FORMAT, needed, "the judge", REMEDY)
    try:
        labels = LabelSet.from_dict(record["label_set"])
        network = JudgeNetwork(labels.num_classes, **_architecture(record))
        network.load_state_dict(weights)
        return Judge(network, labels, str(record["name"]), int(record["resolution"]))
    except (DataError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]  # torch lists every tensor, one a line
        raise CheckpointError(
            f"the judge {path} cannot be used", f"weights and record do not fit together: {reason}", REMEDY
        ) from error


def save_judge(judge: Judge, path: Path, architecture: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Write a judge with weights in float16, and its record; an older judge of that name is replaced.

    Args:
        judge: to write.
        path: the ``.safetensors`` file; the record lies beside it as ``.json``.
        architecture: the arguments of ``JudgeNetwork`` beside the number of classes.
        report: how it was trained and measured, for readers.

    Raises:
        ConfigError: another suffix, or numbers that float16 cannot hold.
    """
    record = {
        "name": judge.name,
        "resolution": judge.resolution,
        "architecture": dict(architecture),
        "label_set": judge.labels.to_dict(),
        **report,
    }
    write_network_file(path, FORMAT, judge.network.state_dict(), record)


def _architecture(record: Mapping[str, Any]) -> dict[str, Any]:
    architecture = dict(record["architecture"])
    architecture["decoder_channels"] = tuple(architecture["decoder_channels"])
    return architecture


def judge_features(judge: str = "avatars") -> JudgeFeatures:
    """A judge's features as the extractor of a Fréchet distance, by name: for YAML files.

    Args:
        judge: name of a judge that ships with sisug, or a file.

    Raises:
        CheckpointError: the judge cannot be loaded.
    """
    return JudgeFeatures(load_judge(judge))
