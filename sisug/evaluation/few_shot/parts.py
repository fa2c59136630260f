"""The parts of the few-shot protocol (evaluation): what one method reaches with one set of labels, measured once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from sisug.baselines.lineargan import train_extractor
from sisug.evaluation.few_shot.labelling import digest_of, label_folder, labelled_samples
from sisug.evaluation.few_shot.material import Material, check_lesson
from sisug.evaluation.few_shot.measuring import Measurement, measure
from sisug.evaluation.few_shot.methods import Method, lineargan_method, sisug_method
from sisug.evaluation.few_shot.settings import FewShotSettings
from sisug.evaluation.few_shot.training import trained_mapper
from sisug.evaluation.workspace import Workspace
from sisug.mapper.trained import load_mapper
from sisug.segmentation.annotation.samples import LabelledSamples

MethodName = Literal["LinearGAN", "sisug"]

METHODS: tuple[MethodName, MethodName] = ("LinearGAN", "sisug")


class Parts:
    """Trains and measures both methods, for any number of labels and any repeat.

    Args:
        settings: of the protocol.
        material: what they name; it is moved to the device.
        work: keeps labels, mappers and results.
        device: to compute on.

    Raises:
        ConfigError: a given mapper learnt from other labels.
        DataError: a folder of labels was changed.
    """

    def __init__(self, settings: FewShotSettings, material: Material, work: Workspace, device: torch.device) -> None:
        self.settings, self.material, self.work, self.device = settings, material, work, device
        for part in (material.rearranger.generator, material.rearranger.codebook, material.judge):
            part.to(device)
        self.samples: dict[tuple[int, int], LabelledSamples] = {}
        for shots in settings.shots:
            for repeat in range(settings.repeats):
                seed = settings.seed + repeat
                samples = labelled_samples(self.labels_of(shots, repeat), material, shots, seed)
                if (shots, repeat) in material.mappers:
                    check_lesson(material.mappers[shots, repeat], samples, seed)
                self.samples[shots, repeat] = samples

    def labels_of(self, shots: int, repeat: int) -> Path:
        """Folder of the labels that both methods learn from.

        Args:
            shots: how many.
            repeat: from 0.
        """
        return label_folder(self.work.folder / "labels", self.material, shots, self.settings.seed + repeat)

    def pictures_of(self, shots: int, repeat: int, method: MethodName) -> Path:
        """File of a part's first images.

        Args:
            shots: labels.
            repeat: from 0.
            method: whose.
        """
        return self.work.folder / "images" / f"{_name(shots, repeat, method)}.npy"

    def measurement(self, shots: int, repeat: int, method: MethodName) -> Measurement:
        """What a method reaches: measured now, or read where an earlier run has measured it.

        Args:
            shots: labels.
            repeat: from 0.
            method: which.
        """

        def measured() -> dict[str, Any]:
            made, details = (self._lineargan if method == "LinearGAN" else self._sisug)(shots, repeat)
            result = measure(
                made,
                self.material.targets,
                self.material.judge,
                range(self.settings.samples),
                device=self.device,
                pictures=self.pictures_of(shots, repeat, method),
                batch_size=self.settings.batch_size,
                details=details | {"labels": digest_of(self.samples[shots, repeat])},
            )
            return asdict(result)

        return Measurement(**self.work.part(_name(shots, repeat, method), measured))

    def _lineargan(self, shots: int, repeat: int) -> tuple[Method, dict[str, Any]]:
        generator, samples = self.material.rearranger.generator, self.samples[shots, repeat]
        settings = self.settings.lineargan
        extractor = train_extractor(
            generator,
            samples.styles(generator),
            samples.masks,
            self.material.labels,
            epochs=settings.epochs,
            learning_rate=settings.extractor_learning_rate,
            seed=self.settings.seed + repeat,
        )
        return lineargan_method(generator, extractor, settings, self.settings.batch_size), {}

    def _sisug(self, shots: int, repeat: int) -> tuple[Method, dict[str, Any]]:
        settings = self.settings
        trained = self.material.mappers.get((shots, repeat))
        if trained is not None:
            details = {"mapper": f"given: {Path((settings.mappers or {})[shots][repeat]).name}"}
        else:
            checkpoint = trained_mapper(
                self.work.folder / "mappers",
                f"shots-{shots}-repeat-{repeat}",
                rearranger=settings.rearranger,
                generator=settings.generator,
                labels=settings.labels,
                annotations=self.labels_of(shots, repeat),
                shots=shots,
                decides={
                    "rearranger": self.material.fingerprints["rearranger"],
                    "labels": digest_of(self.samples[shots, repeat]),
                },
                training=settings.mapper,
                seed=settings.seed + repeat,
                device=self.device,
            )
            trained = load_mapper(checkpoint, settings.generator)
            details = {"mapper": f"trained here on {settings.mapper.total} images"}
        return sisug_method(trained, self.material.truncation, settings.batch_size, self.device), details


def _name(shots: int, repeat: int, method: MethodName) -> str:
    return f"shots-{shots}-repeat-{repeat}-{method.lower()}"
