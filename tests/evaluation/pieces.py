"""Files that the tests of protocols share: a mapper and a rearranger of random weights, a judge, a folder of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from data.masks.trees import image, mask, save
from mapper.mappers import random_mapper, random_rearranger

from sisug.evaluation.commands import identity_of
from sisug.evaluation.protocol import Protocol
from sisug.evaluation.report import Report
from sisug.evaluation.workspace import Workspace
from sisug.labels.label_sets import AVATARS, LabelSet
from sisug.mapper.trained import write_mapper
from sisug.rearranger.trained import write_rearranger
from sisug.segmentation.judge import Judge
from sisug.segmentation.loading import save_judge
from sisug.segmentation.network import JudgeNetwork

SMALL_JUDGE: dict[str, Any] = {"encoder": "tu-resnet10t", "decoder_channels": (8, 8, 8), "detail_channels": 4}


def write_judge(folder: Path, labels: LabelSet = AVATARS) -> Path:
    """An untrained judge that names all sorts of classes: its head is turned up."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = JudgeNetwork(labels.num_classes, **SMALL_JUDGE)
        with torch.no_grad():
            for parameter in network.head.parameters():
                parameter *= 20
    path = folder / f"judge-{labels.name}.safetensors"
    save_judge(Judge(network, labels, f"small-{labels.name}", 16), path, SMALL_JUDGE, {})
    return path


def write_pieces(folder: Path, generator: Path, labels: LabelSet = AVATARS, kind: str = "seg") -> dict[str, str]:
    """Settings of a protocol that name such files."""
    mapper, rearranger = folder / f"mapper-{kind}.safetensors", folder / "rearranger.safetensors"
    write_mapper(random_mapper(generator, kind, labels), mapper)
    write_rearranger(random_rearranger(generator), rearranger)
    return {"mapper": str(mapper), "judge": str(write_judge(folder, labels))}


def write_data(folder: Path, count: int, labels: LabelSet = AVATARS, size: int = 16) -> Path:
    """Random images and masks, with their label set and a list of the second half."""
    names = [f"{number:03d}" for number in range(count)]
    for number, name in enumerate(names):
        save(folder / "images" / f"{name}.png", image(number, size))
        save(folder / "masks" / f"{name}.png", mask(number, size, labels.num_classes))
    (folder / "labels.json").write_text(json.dumps(labels.to_dict()))
    (folder / "splits").mkdir(exist_ok=True)
    (folder / "splits" / "test.txt").write_text("\n".join(names[count // 2 :]))
    return folder


def measure(protocol: Protocol, folder: Path) -> Report:
    """Run a protocol on the CPU, and write its report."""
    report = protocol.run(Workspace(folder, identity_of(protocol)), torch.device("cpu"))
    report.write(folder)
    return report


def part(folder: Path, name: str) -> dict[str, Any]:
    content = json.loads((folder / "parts" / f"{name}.json").read_text())
    assert isinstance(content, dict)
    return content
