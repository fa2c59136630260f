"""Judges on disk: safetensors weights beside a JSON record of what the judge is and how good it was measured to be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sisug.common.atomic_file import atomic_write
from sisug.errors import CheckpointError, DataError, check_local
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
    check_local(path, "the judge")
    record = _read_record(path)
    if not path.is_file():
        raise _unusable(path, "there is no such file")
    if hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
        raise _unusable(path, "its checksum is not the one in its record: it is damaged, or of another judge")
    try:
        weights = load_file(path)
        labels = LabelSet.from_dict(record["label_set"])
        network = JudgeNetwork(labels.num_classes, **_architecture(record))
        network.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in weights.items()})
        return Judge(network, labels, str(record["name"]), int(record["resolution"]))
    except (SafetensorError, DataError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]  # torch lists every tensor, one a line
        raise _unusable(path, f"weights and record do not fit together: {reason}") from error


def save_judge(judge: Judge, path: Path, architecture: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Write a judge with weights in float16, and its record; an older judge of that name is replaced.

    Args:
        judge: to write.
        path: the ``.safetensors`` file; the record lies beside it as ``.json``.
        architecture: the arguments of ``JudgeNetwork`` beside the number of classes.
        report: how it was trained and measured, for readers.
    """
    weights = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in judge.network.state_dict().items()
    }
    data = save(weights)
    record = {
        "format": FORMAT,
        "name": judge.name,
        "resolution": judge.resolution,
        "architecture": dict(architecture),
        "label_set": judge.labels.to_dict(),
        **report,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_write(path) as file:
        file.write(data)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def _read_record(path: Path) -> dict[str, Any]:
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise _unusable(path, f"its record {sidecar.name} is not beside it")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _unusable(path, f"its record {sidecar.name} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise _unusable(path, f"{sidecar.name} is not the record of a judge ({FORMAT})")
    missing = {"name", "resolution", "architecture", "label_set", "sha256"} - record.keys()
    if missing:
        raise _unusable(path, f"its record {sidecar.name} has no {', '.join(sorted(missing))}")
    return record


def _architecture(record: Mapping[str, Any]) -> dict[str, Any]:
    architecture = dict(record["architecture"])
    architecture["decoder_channels"] = tuple(architecture["decoder_channels"])
    return architecture


def _unusable(path: Path, cause: str) -> CheckpointError:
    return CheckpointError(f"the judge {path} cannot be used", cause, REMEDY)


def judge_features(judge: str = "avatars") -> JudgeFeatures:
    """A judge's features as the extractor of a Fréchet distance, by name: for YAML files.

    Args:
        judge: name of a judge that ships with sisug, or a file.

    Raises:
        CheckpointError: the judge cannot be loaded.
    """
    return JudgeFeatures(load_judge(judge))
