"""`sisug judge export`: from a training checkpoint to the measured judge file that other stages load."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from sisug.common.torch_files.data import load_run
from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.errors import CheckpointError, ConfigError, SisugError
from sisug.metrics.segmentation import SegmentationResult, SegmentationScore
from sisug.segmentation.judge import Judge
from sisug.segmentation.loading import save_judge
from sisug.segmentation.module import JudgeModule

logger = logging.getLogger(__name__)

ARCHITECTURE = ("encoder", "decoder_channels", "detail_channels")
"""Arguments of the training that shape the network."""

TRAINED_BY = "sisug fit --config experiments/base.yaml --config experiments/judge/avatars.yaml"


def export(checkpoint: Path, out: Path, name: str = "avatars-judge-unet-v1", test_length: int = 2000) -> str:
    """Measure a trained judge on held-out avatars and write it as a judge file.

    Args:
        checkpoint: ``.ckpt`` file of a ``JudgeModule`` run.
        out: ``.safetensors`` file to write; its record lies beside it as ``.json``.
        name: of the judge, as metrics will carry it.
        test_length: avatars of the test split to measure on.

    Returns:
        A line with the measured mIoU and the path.

    Raises:
        CheckpointError: when the checkpoint is missing, damaged or of another module.
        ConfigError: when ``out`` has another suffix.
    """
    if out.suffix != ".safetensors":
        raise ConfigError(
            f"judge file {out}", "judges are stored as safetensors", "name it with the suffix .safetensors"
        )
    module, resolution = _read_checkpoint(checkpoint)
    judge = Judge(module.network, module.labels, name, resolution)
    result = measure(judge, MaterialisedAvatars("test", test_length, resolution))
    per_class = {
        label: None if iou.isnan() else round(float(iou), 4)  # None: the class does not occur
        for label, iou in zip(judge.labels.classes, result.iou, strict=True)
    }
    report = {
        "training": {
            "command": TRAINED_BY,
            "images_seen": int(module.images_seen),
            "arguments": json.loads(json.dumps(dict(module.hparams))),
        },
        "measured": {
            "protocol": f"one confusion matrix over all pixels of {test_length} drawn avatars, test split, "
            f"{resolution} px; mean over the classes that occur",
            "miou": round(float(result.miou), 4),
            "accuracy": round(float(result.accuracy), 4),
            "iou": per_class,
        },
    }
    save_judge(judge, out, {key: module.hparams[key] for key in ARCHITECTURE}, report)
    return f"{name}: mIoU {float(result.miou):.4f} on {test_length} test avatars; written to {out}"


def measure(judge: Judge, dataset: Dataset[Any], batch_size: int = 64) -> SegmentationResult:
    """Scores of a judge over a data set with true masks, from one confusion matrix.

    Args:
        judge: whose masks are compared with the true ones.
        dataset: of dicts with ``image`` and ``mask``.
        batch_size: images at a time.
    """
    score = SegmentationScore(judge.labels.num_classes, judge.labels.ignore)
    for batch in DataLoader(dataset, batch_size=batch_size):
        score.update(judge.segment(batch["image"]), batch["mask"])
    return score.compute()


def _read_checkpoint(path: Path) -> tuple[JudgeModule, int]:
    remedy = f"give the checkpoint of a run of `{TRAINED_BY}`"
    content = load_run(path, "checkpoint", remedy)
    try:
        arguments = {key: value for key, value in content["hyper_parameters"].items() if not key.startswith("_")}
        resolution = int(content["datamodule_hyper_parameters"]["resolution"])
        module = JudgeModule(**arguments)
        module.load_state_dict(content["state_dict"])
    except (SisugError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be used", f"it is not of a JudgeModule: {str(error)[:300]}", remedy
        ) from error
    return module, resolution
