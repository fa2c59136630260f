"""Judges by shipped name, file, hub name, or class_path with init_args, as Lightning's YAML has them (evaluation)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sisug.errors import ConfigError, check_local
from sisug.labels.label_sets import LabelSet
from sisug.segmentation.judges.landmark_judge import LANDMARKS, FaceLandmarkJudge
from sisug.segmentation.judges.protocol import JudgeProtocol
from sisug.segmentation.judges.transformers_judge import TransformersJudge
from sisug.segmentation.loading import JUDGES, load_judge


def open_judge(judge: str | Path | Mapping[str, Any] | JudgeProtocol = "avatars") -> JudgeProtocol:
    """A judge, however it is named; on the CPU.

    Args:
        judge: a shipped judge's name, "face-landmarks" (see `FaceLandmarkJudge`), a `.safetensors` file of
            `sisug judge export`, a folder or hub name of a model that transformers loads
            ("jonathandinu/face-parsing"), `{"class_path": ..., "init_args": {...}}` of any class that is a judge, or a
            judge itself.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: it is none of these, the class cannot be made, or is no judge.
    """
    if isinstance(judge, Mapping):
        return _make(judge)
    if not isinstance(judge, str | Path):
        return _checked(judge, type(judge).__name__)
    check_local(judge, "judge")
    if str(judge) == LANDMARKS:
        return FaceLandmarkJudge()
    path = Path(judge).expanduser()
    if str(judge) in JUDGES or path.suffix == ".safetensors":
        return load_judge(path if path.suffix == ".safetensors" else judge)
    if (path / "config.json").is_file() or (
        isinstance(judge, str) and not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", judge)
    ):
        return TransformersJudge(str(judge))
    raise ConfigError(
        f"judge {str(judge)!r}",
        f"the judges by name are {', '.join((*JUDGES, LANDMARKS))}; it is no .safetensors file, no folder with "
        "config.json, and no hub name (owner/model) either",
        "correct the name, or give class_path and init_args",
    )


def _make(spec: Mapping[str, Any]) -> JudgeProtocol:
    from jsonargparse import ArgumentError, ArgumentParser

    path, arguments = spec.get("class_path"), spec.get("init_args") or {}
    if not isinstance(path, str) or not isinstance(arguments, Mapping) or spec.keys() - {"class_path", "init_args"}:
        raise ConfigError(
            f"judge {dict(spec)}",
            "a judge is made of class_path and init_args",
            'write {"class_path": "sisug.segmentation.judges.TransformersJudge", "init_args": {"model": "..."}}',
        )
    # Not as an argument of the type JudgeProtocol: jsonargparse asks classes for the very annotations of a protocol.
    parser = ArgumentParser(exit_on_error=False)
    try:
        module, _, attribute = path.rpartition(".")
        maker = getattr(importlib.import_module(module), attribute)
        if isinstance(maker, type):
            parser.add_class_arguments(maker, "judge", fail_untyped=False)
        else:
            parser.add_function_arguments(maker, "judge", fail_untyped=False)
        parsed = parser.parse_object({"judge": dict(arguments)})
        made = parser.instantiate_classes(parsed).judge
        return _checked(made if isinstance(maker, type) else maker(**vars(made)), path)
    except (ArgumentError, TypeError, ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ConfigError(
            f"the judge {path} cannot be made", reason, "correct class_path and the names and values of init_args"
        ) from error


def _checked(judge: Any, name: str) -> JudgeProtocol:
    if not isinstance(judge, JudgeProtocol) or not isinstance(judge.labels, LabelSet):
        lacking = [part for part in ("labels", "name", "fingerprint", "segment", "to") if not hasattr(judge, part)]
        raise ConfigError(
            f"{name} is no judge",
            f"it lacks {', '.join(lacking)}" if lacking else "its labels are no label set",
            "see sisug.segmentation.judges.JudgeProtocol for what a judge has; NetworkJudge makes one of a network",
        )
    return judge
