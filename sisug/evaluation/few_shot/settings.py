"""What decides the numbers of the few-shot protocol (evaluation), checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sisug.errors import ConfigError, check_range
from sisug.evaluation.training import Precision
from sisug.synthesis.options import check_truncation

EPOCH = 1024
"""Images, about, after which a mapper in training is saved, so that an interruption costs minutes."""

CANDIDATES = 512
"""Samples to pick labelled ones from, as `MapperModule` does."""


@dataclass(frozen=True)
class MapperTraining:
    """How much each mapper learns; all else is `MapperModule`'s own.

    Args:
        images: samples that it is trained on, rounded down to whole batches.
        reader_images: samples that the reader learns from before.
        batch_size: images a step, 2 or more.
        precision: of the arithmetic; features and clusters stay in float32.

    Raises:
        ConfigError: a number out of range.
    """

    images: int
    reader_images: int
    batch_size: int
    precision: Precision

    def __post_init__(self) -> None:
        check_range(reader_images=self.reader_images, above=0)
        check_range(batch_size=self.batch_size, above=1)
        if self.images < self.batch_size:
            raise ConfigError(
                f"a mapper trained on {self.images} images",
                f"a step takes {self.batch_size}",
                "raise mapper_images, or lower mapper_batch_size",
            )

    @property
    def epochs(self) -> int:
        """Parts of the training, each saved at its end."""
        return max(1, round(self.images / EPOCH))

    @property
    def images_per_epoch(self) -> int:
        """Images of a part: whole batches."""
        return max(1, self.images // self.epochs // self.batch_size) * self.batch_size

    @property
    def total(self) -> int:
        """Images that are trained on."""
        return self.epochs * self.images_per_epoch


@dataclass(frozen=True)
class LinearGANSettings:
    """LinearGAN's training and search, where the published program has them for faces as by default here.

    Args:
        draws: latents from which a search starts at the best (10 for bedrooms).
        steps: of the search.
        learning_rate: of the search.
        epochs: of the extractor's training, 128 labelled samples each.
        extractor_learning_rate: of that training.

    Raises:
        ConfigError: a number out of range.
    """

    draws: int
    steps: int
    learning_rate: float
    epochs: int
    extractor_learning_rate: float

    def __post_init__(self) -> None:
        check_range(draws=self.draws, learning_rate=self.learning_rate, epochs=self.epochs, above=0)
        check_range(extractor_learning_rate=self.extractor_learning_rate, above=0)
        check_range(steps=self.steps)


@dataclass(frozen=True)
class FewShotSettings:
    """The settings of `FewShot`, flat: on the command line, each is given by itself.

    Args:
        rearranger: file or name of the rearranger; its generator is both methods'.
        generator: preset, file or class in the place of the generator that the rearranger names.
        labels: name or file of the label set.
        judge: name or file of a judge with these classes, or class_path and init_args of one.
        data: where targets come from: "avatars", or a folder with held-out masks: `images/` with `masks/`, or
            CelebAMask-HQ as published.
        split: of avatars train, val or test; of a folder the list `splits/NAME.txt`, one that CelebAMask-HQ has
            ("first-2000" has LinearGAN's targets), a file of names, or "all".
        shots: numbers of labels, 1 to 512.
        repeats: trainings for each, with other labels and first weights; 5 in the published protocol.
        targets: masks; 100 in the published protocol.
        samples: images of each; 10 in the published protocol.
        truncation: of sisug's looks, 0 to 1; None for that of the rearranger. LinearGAN's searches have none.
        batch_size: images at a time, for both.
        mappers: by number of labels, files or names of mappers for the first repeats, in the place of training.
        mapper_images: samples that a mapper is trained on; all but this and the next three is `MapperModule`'s own.
        mapper_batch_size: images a step of that.
        reader_images: samples that its reader learns from before.
        precision: of its arithmetic.
        lineargan_draws: latents from which a search starts at the best; 100 in the published protocol of faces.
        lineargan_steps: of a search; 50.
        lineargan_learning_rate: of a search; 0.01.
        lineargan_epochs: of the extractor's training; 50.
        lineargan_extractor_learning_rate: of that training; 0.001.
        seed: of the first repeat; the next ones count on.

    Raises:
        ConfigError: a number out of range, or mappers for what is not asked for.
    """

    rearranger: str = "avatars"
    generator: str | dict[str, Any] | None = None
    labels: str = "avatars"
    judge: str | dict[str, Any] = "avatars"
    data: str = "avatars"
    split: str = "test"
    shots: tuple[int, ...] = (1, 4, 8, 16)
    repeats: int = 5
    targets: int = 100
    samples: int = 10
    truncation: float | None = None
    batch_size: int = 8
    mappers: dict[int, list[str]] | None = None
    mapper_images: int = 8192
    mapper_batch_size: int = 16
    reader_images: int = 2048
    precision: Precision = "bf16-mixed"
    lineargan_draws: int = 100
    lineargan_steps: int = 50
    lineargan_learning_rate: float = 0.01
    lineargan_epochs: int = 50
    lineargan_extractor_learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(repeats=self.repeats, targets=self.targets, samples=self.samples, above=0)
        check_range(batch_size=self.batch_size, above=0)
        check_range(seed=self.seed)
        _ = self.mapper, self.lineargan  # they refuse what is out of range
        if self.truncation is not None:
            check_truncation(self.truncation)
        if not self.shots or len(set(self.shots)) < len(self.shots) or not all(0 < n <= CANDIDATES for n in self.shots):
            raise ConfigError(
                f"shots {list(self.shots)}",
                "they are different numbers of labels",
                f"name one or more, from 1 to {CANDIDATES}",
            )
        for shots, files in (self.mappers or {}).items():
            if shots not in self.shots or len(files) > self.repeats:
                raise ConfigError(
                    f"{len(files)} mappers of {shots} labels",
                    f"there are {self.repeats} repeats of {', '.join(map(str, self.shots))} labels",
                    "name mappers for these only, or raise repeats",
                )

    @property
    def mapper(self) -> MapperTraining:
        """How mappers are trained."""
        return MapperTraining(self.mapper_images, self.reader_images, self.mapper_batch_size, self.precision)

    @property
    def lineargan(self) -> LinearGANSettings:
        """How LinearGAN is trained and searches."""
        return LinearGANSettings(
            self.lineargan_draws,
            self.lineargan_steps,
            self.lineargan_learning_rate,
            self.lineargan_epochs,
            self.lineargan_extractor_learning_rate,
        )
