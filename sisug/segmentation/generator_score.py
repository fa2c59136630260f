"""`sisug generator score`: generators of avatars beside drawn ones, all in one run with one judge (before stage 1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sisug.common.seeding import fixed_latents
from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.data.avatars.dataset import Split
from sisug.errors import check_range
from sisug.generators.backbone import GeneratorBackbone
from sisug.generators.loading import load_generator
from sisug.metrics import FrechetDistance, ProtocolRecord
from sisug.segmentation.judge import Judge, JudgeFeatures
from sisug.segmentation.loading import load_judge
from sisug.types import Images

logger = logging.getLogger(__name__)

BATCH = 100


@dataclass
class Score:
    """What is known of one set of images.

    Args:
        name: file, preset, or "drawn".
        frechet: Fréchet distance to the drawn test avatars, in the judge's features.
        variety: spread of the features over that of the drawn ones.
        shares: share of pixels of each class, as the judge sees it.
        fingerprint: of the generator; None for drawn avatars.
    """

    name: str
    frechet: float
    variety: float
    shares: Float[Tensor, " class"]
    fingerprint: str | None


def score(
    generators: list[str | dict[str, Any]] = ["avatars"],  # noqa: B006  # jsonargparse copies it
    samples: int = 10_000,
    judge: str = "avatars",
    seed: int = 0,
    records: Path | None = None,
) -> str:
    """Compare generators of avatars, and drawn avatars of another split, to drawn test avatars.

    Args:
        generators: presets, files or classes, as a list: `--generators '[avatars, mine.safetensors]'`.
        samples: images of each set; Fréchet distances fall with their number.
        judge: name of a judge that ships with sisug, or a file.
        seed: of the latents.
        records: folder for a JSON record of each figure, or none.

    Returns:
        A table: Fréchet distances, variety, and the share of pixels of each class beside that of drawn avatars.

    Raises:
        CheckpointError: a generator or the judge cannot be loaded.
        ConfigError: too few samples.
    """
    check_range(samples=samples, above=1)
    reader = load_judge(judge)
    networks = [load_generator(each) for each in generators]
    frechet = FrechetDistance(JudgeFeatures(reader), reader.name, keep_real=True)
    resolution = max(each.resolution for each in networks)
    reference = _read(_drawn("test", samples, resolution), reader, frechet, real=True)
    scores = [_score("drawn, another set", _drawn("val", samples, resolution), reader, frechet, None)]
    for named, network in zip(generators, networks, strict=True):
        name = named if isinstance(named, str) else network.source
        scores.append(_score(name, _samples(network, samples, seed), reader, frechet, network.fingerprint))
    if records is not None:
        for each in scores:
            _record(each, reader, samples, seed).write(records / f"{Path(each.name).stem.replace(', ', '-')}.json")
    return table(scores, reference, reader.labels.classes)


def table(scores: list[Score], reference: Float[Tensor, " class"], classes: tuple[str, ...]) -> str:
    """The figures as text, a row a set, a class a row below.

    Args:
        scores: sets compared.
        reference: shares of the drawn test avatars.
        classes: names.
    """
    width = max(len(each.name) for each in scores)
    lines = [f"{'':<{width}}  {'Fréchet':>8}  {'variety':>8}"]
    lines += [f"{each.name:<{width}}  {each.frechet:>8.4f}  {each.variety:>8.3f}" for each in scores]
    names = [f"{each.name[-18:]:>18}" for each in scores]
    lines += ["", f"{'share of pixels':<16}  {'drawn test':>10}  " + "  ".join(names)]
    for index, label in enumerate(classes):
        true = float(reference[index])
        found = [
            f"{float(each.shares[index]):>10.4f} ({float(each.shares[index]) / true - 1:>+4.0%})" for each in scores
        ]
        lines.append(f"{label:<16}  {true:>10.4f}  " + "  ".join(f"{text:>18}" for text in found))
    return "\n".join(lines)


def _drawn(split: Split, count: int, resolution: int) -> Iterator[Images]:
    avatars = MaterialisedAvatars(split, count, resolution)
    for start in range(0, count, BATCH):
        yield torch.stack([avatars[i]["image"] for i in range(start, min(start + BATCH, count))])


@torch.no_grad()
def _samples(generator: GeneratorBackbone, count: int, seed: int) -> Iterator[Images]:
    for numbers in torch.arange(count).split(BATCH):  # type: ignore[no-untyped-call]  # untyped in torch
        ws = generator.map(fixed_latents(numbers, generator.z_dim, seed=seed, purpose="score"))
        yield generator.images(ws)


@torch.no_grad()
def _read(images: Iterator[Images], judge: Judge, frechet: FrechetDistance, real: bool) -> Float[Tensor, " class"]:
    """Pass images to the distance and count the judge's classes."""
    classes = judge.labels.num_classes
    counts = torch.zeros(classes, dtype=torch.int64)
    for batch in images:
        frechet.update(batch, real=real)
        counts += torch.bincount(judge.segment(batch).flatten(), minlength=classes)[:classes]
    return counts.double() / counts.sum()


def _score(
    name: str, images: Iterator[Images], judge: Judge, frechet: FrechetDistance, fingerprint: str | None
) -> Score:
    logger.info("reading %s", name)
    shares = _read(images, judge, frechet, real=False)
    distance = float(frechet.compute())
    frechet.reset()
    return Score(name, distance, frechet.variety, shares, fingerprint)


def _record(score: Score, judge: Judge, samples: int, seed: int) -> ProtocolRecord:
    fingerprints = {"judge": judge.fingerprint} | ({"generator": score.fingerprint} if score.fingerprint else {})
    return ProtocolRecord(
        metric=f"frechet_{judge.name}",
        value=score.frechet,
        samples={"real": samples, "generated": samples},
        split="test",
        seeds={"latents": seed},
        extractor=judge.name,
        fingerprints=fingerprints,
    )
