"""Protocol `ablation` (evaluation of stage 1): rearrangers trained with other settings, and what each gives up."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch

from sisug.errors import CodebookError, ConfigError, DataError, SisugError, check_range
from sisug.evaluation.ablation_training import Training
from sisug.evaluation.protocol import Protocol
from sisug.evaluation.report import Cell, Report, Table
from sisug.evaluation.sampled import check_confidence, check_seeds
from sisug.evaluation.training import Precision
from sisug.evaluation.workspace import Workspace
from sisug.generators import GeneratorBackbone, load_generator
from sisug.metrics import mean_interval
from sisug.proxies import OnlineClustering
from sisug.rearranger import RearrangerModule
from sisug.segmentation.judge import Judge
from sisug.segmentation.loading import load_judge

logger = logging.getLogger(__name__)

AS_IT_IS = "as it is"
"""The cell in which nothing is changed."""

FIGURES = {
    "layout_miou": "layout mIoU",
    "layout_miou_source": "of untouched samples",
    "look": "look",
    "look_unrelated": "of unrelated samples",
    "frechet_judge": "Fréchet",
    "frechet_judge_plain": "plain to plain",
    "proxy_miou": "proxy mIoU",
    "proxy_accuracy": "proxy accuracy",
    "self_psnr": "PSNR, dB",
}
"""Of what a test of stage 1 logs, each with the column that shows it."""


@dataclass(frozen=True, kw_only=True)
class Ablation(Protocol):
    """A grid of settings of stage 1: each cell trains a rearranger and is scored over the same held-out pairs.

    Training goes through Lightning and is resumable; a finished one is kept in the folder of the evaluation, and is
    found again by all that decides it. Figures are those of `sisug.rearranger.quality` and
    `RearrangerModule`'s test.

    Args:
        generator: preset, file or class of the frozen generator.
        base: settings of `RearrangerModule` that all cells share.
        clustering: settings of `OnlineClustering` that all cells share.
        grid: settings of `RearrangerModule` with the values to try.
        crossed: try all combinations; otherwise one setting is changed at a time.
        images: that each cell trains on.
        checkpoint_every: images between two checkpoints; divides `images`.
        train_batch: images a step; divides `checkpoint_every`.
        precision: of training: 32-true or bf16-mixed.
        judge: name of a judge that ships with sisug, or a file.
        pairs: of samples in a test.
        training_seeds: of trainings; more than one tells what is chance.
        seeds: of the samples in tests.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ConfigError: a value out of range, or a setting that there is none of.

    Source: our choice.
    """

    name: ClassVar[str] = "ablation"

    generator: str | dict[str, Any] = "avatars"
    base: dict[str, Any] = field(default_factory=dict)
    clustering: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    crossed: bool = False
    images: int = 4096
    checkpoint_every: int = 1024
    train_batch: int = 16
    precision: Precision = "32-true"
    judge: str = "avatars"
    pairs: int = 256
    training_seeds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0, 1, 2)
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_seeds(self.training_seeds, "training_seeds")
        check_confidence(self.confidence)
        check_range(images=self.images, checkpoint_every=self.checkpoint_every, above=0)
        check_range(train_batch=self.train_batch, pairs=self.pairs, above=1)
        if self.images % self.checkpoint_every or self.checkpoint_every % self.train_batch:
            raise ConfigError(
                f"images {self.images}, checkpoint_every {self.checkpoint_every}, train_batch {self.train_batch}",
                "checkpoints come after whole batches, and the last one at the end",
                "let each divide the one before it",
            )
        _check_names("base", self.base, RearrangerModule)
        _check_names("grid", self.grid, RearrangerModule)
        _check_names("clustering", self.clustering, OnlineClustering)
        if empty := [name for name, values in self.grid.items() if not values]:
            raise ConfigError(f"grid of {', '.join(empty)}", "no value is given", "list values, or leave it out")

    def identity(self) -> Mapping[str, Any]:
        for settings in self.cells.values():
            training = self._training(settings, self.training_seeds[0])
            training.module()
            training.callback()
        return self.record()

    def record(self) -> dict[str, Any]:
        """What decides the numbers; JSON values."""
        judge = self._judge
        return {
            "counts": {"images of training": self.images, "pairs of a test": self.pairs, "plain samples": self.pairs},
            "seeds": list(self.seeds),
            "training_seeds": list(self.training_seeds),
            "confidence": self.confidence,
            "cells": {name: dict(settings) for name, settings in self.cells.items()},
            "clustering": dict(self.clustering),
            "precision of training": self.precision,
            "batch": self.train_batch,
            "split of the data": "test: latents that no training draws",
            "segmenter": judge.name,
            "extractor": {"name": judge.name, "sha256": judge.fingerprint},
            "label_set": judge.labels.name,
            "fingerprints": {"generator": self._generator.fingerprint, "judge": judge.fingerprint},
        }

    @cached_property
    def cells(self) -> dict[str, Mapping[str, Any]]:
        """Settings of each cell by its name, without those that repeat another cell."""
        changes: list[dict[str, Any]] = [{}]
        if self.crossed:
            changes += [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        else:
            changes += [{name: value} for name, values in self.grid.items() for value in values]
        defaults = {
            name: parameter.default for name, parameter in inspect.signature(RearrangerModule).parameters.items()
        }
        cells: dict[str, Mapping[str, Any]] = {}
        known: list[dict[str, Any]] = []
        for change in changes:
            if defaults | self.base | change not in known:
                known.append(defaults | self.base | change)
                cells[_name(change)] = self.base | change
        return cells

    def run(self, work: Workspace, device: torch.device) -> Report:
        found: dict[str, list[list[dict[str, Any]]]] = {}
        failures: dict[str, SisugError] = {}
        for name, settings in self.cells.items():
            try:
                found[name] = [self._measure(work, name, settings, seed, device) for seed in self.training_seeds]
            except (CodebookError, DataError) as error:  # a cell that diverges is a finding, and no end of the others
                logger.error("%s: %s", name, error)
                failures[name] = error
        if not found:
            raise next(iter(failures.values()))
        return self._report(found, failures)

    def _measure(
        self, work: Workspace, name: str, settings: Mapping[str, Any], training_seed: int, device: torch.device
    ) -> list[dict[str, Any]]:
        training = self._training(settings, training_seed)
        key = self._key(name, training)
        folder = work.folder / "rearrangers" / key

        def measure(seed: int) -> dict[str, float]:
            return training.scores(training.run(folder, device), self.judge, self.pairs, seed, device)

        return [work.part(f"{key}-seed{seed}", partial(measure, seed)) for seed in self.seeds]

    def _training(self, settings: Mapping[str, Any], seed: int) -> Training:
        return Training(
            settings={"generator": self.generator, **settings},
            clustering=self.clustering,
            images=self.images,
            checkpoint_every=self.checkpoint_every,
            batch_size=self.train_batch,
            precision=self.precision,
            seed=seed,
        )

    def _key(self, name: str, training: Training) -> str:
        """A file's name: readable, and another one for whatever trains otherwise."""
        settings = {**training.settings, "generator": self._generator.fingerprint}
        parts = vars(training) | {"settings": settings}
        code = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:10]
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)[:60]}-{code}"

    @cached_property
    def _generator(self) -> GeneratorBackbone:
        return load_generator(self.generator)

    @cached_property
    def _judge(self) -> Judge:
        return load_judge(self.judge)

    def _report(self, found: Mapping[str, list[list[dict[str, Any]]]], failures: Mapping[str, SisugError]) -> Report:
        rows: list[tuple[Cell, ...]] = []
        for name in self.cells:
            if name in failures:
                rows.append((name, *["failed"] * len(FIGURES)))
                continue
            cells: list[Cell] = []
            for figure in FIGURES:
                by_training = [[part[figure] for part in parts] for parts in found[name]]
                values = by_training[0] if len(by_training) == 1 else [fmean(values) for values in by_training]
                cells.append(mean_interval(values, self.confidence))
            rows.append((name, *cells))
        table = Table(
            f"Rearrangers of {self.images:,} images, {self.pairs} held-out pairs",
            ("changed", *FIGURES.values()),
            rows,
            self._notes(failures),
        )
        subject = Path(self._generator.source).name
        return Report(
            self.name,
            f"Settings of stage 1 on {subject}, {'crossed' if self.crossed else 'one at a time'}.",
            [table],
            self.record(),
        )

    def _notes(self, failures: Mapping[str, SisugError]) -> tuple[str, ...]:
        trainings, percent = len(self.training_seeds), f"{self.confidence:.0%}"
        if trainings > 1:
            spread = (
                f"± is half the {percent} confidence interval over {trainings} trainings, each the mean of "
                f"{len(self.seeds)} seeds of test pairs."
            )
        elif len(self.seeds) > 1:
            spread = (
                f"± is half the {percent} confidence interval over {len(self.seeds)} seeds of test pairs of one "
                "training: what another training would give is not in it."
            )
        else:
            spread = "One seed of test pairs of one training: the spread is not known."
        return (
            spread,
            f"Layout: {self._judge.name}'s masks of results against those of the targets' own images. Look: CIELAB "
            "difference by class to the source, less is better. Fréchet: in that judge's features, to as many plain "
            "samples; no FID.",
            "Of other splits, K or codebooks, proxy figures do not compare: their masks are others.",
            *(f"{name} failed: {error.state}. {error.cause}." for name, error in failures.items()),
        )


def _name(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in change.items()) or AS_IT_IS


def _check_names(where: str, given: Mapping[str, Any], kind: type) -> None:
    """Refuse settings that a class has not, and those that the protocol sets itself."""
    own = [name for name in inspect.signature(kind).parameters if name not in ("generator", "seed")]
    unknown = [name for name in given if name not in own]
    if unknown:
        raise ConfigError(
            f"{where} with {', '.join(unknown)}",
            f"{kind.__name__} has no such setting to vary; it has {', '.join(own)}",
            "correct the name",
        )
