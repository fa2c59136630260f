"""Protocol quality: numbers against the metrics called directly, resumption, invariance, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from data.masks.trees import image, save
from evaluation.pieces import measure, part, write_data, write_judge, write_pieces
from mapper.mappers import THREE, random_rearranger
from torch import Tensor, nn

from sisug.common.seeding import fixed_latents
from sisug.data.avatars import AvatarsDataset
from sisug.errors import CheckpointError, ConfigError, DataError, SisugError
from sisug.evaluation.commands import identity_of, make_protocol
from sisug.evaluation.quality import Quality
from sisug.evaluation.realism import heads, is_official
from sisug.evaluation.samples import Samples
from sisug.evaluation.workspace import Workspace
from sisug.generators import Generator
from sisug.generators.native import write_native
from sisug.labels.label_sets import AVATARS
from sisug.mapper.trained import load_mapper
from sisug.metrics import FrechetDistance, InceptionFeatures, KernelDistance, ManifoldScores, NamedExtractor
from sisug.metrics.interval import mean_interval
from sisug.rearranger.trained import write_rearranger
from sisug.segmentation.judge import JudgeFeatures
from sisug.segmentation.loading import load_judge

COUNT = 12
SEEDS = (3, 5)
ROWS = ("plain", "synthesised", "data", "rearranged", "again")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def pieces(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_pieces(tmp_path_factory.mktemp("pieces"), tiny_generator_file)


@pytest.fixture(scope="module")
def measured(pieces: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Quality, Path]:
    """A finished evaluation, which tests read and must not change."""
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISUG_CACHE", str(folder / "cache"))
        protocol = Quality(**pieces, images=COUNT, seeds=SEEDS)
        measure(protocol, folder)
    return protocol, folder


def small(pieces: dict[str, str], **settings: Any) -> Quality:
    return Quality(**(pieces | {"images": COUNT, "seeds": (3,)} | settings))


def direct(pieces: dict[str, str], seed: int) -> dict[str, Tensor]:
    """The same images, without the protocol."""
    mapper = load_mapper(pieces["mapper"])
    rearranger = mapper.rearranger
    generator = rearranger.generator

    def styles(purpose: str) -> Tensor:
        z = fixed_latents(torch.arange(COUNT), generator.z_dim, seed=seed, purpose=f"evaluation {purpose}")
        return generator.map(z, 0.9)  # of the rearranger

    def laid_out(target: Tensor) -> Tensor:
        features = generator.features(styles("look"))
        moved = rearranger.network(features, rearranger.codebook.assign(features.map), target, styles("look"))
        return generator.render(moved, styles("look")).clamp(-1, 1)

    drawn = AvatarsDataset("test", 100, 16)
    masks = torch.stack([drawn[place]["mask"] for place in range(COUNT, 2 * COUNT)])
    one_hot = nn.functional.one_hot(masks, AVATARS.num_classes).permute(0, 3, 1, 2).float()
    block = (2 + SEEDS.index(seed)) * COUNT
    with torch.no_grad():
        return {
            "plain": generator.render(generator.features(styles("look")), styles("look")).clamp(-1, 1),
            "other": generator.render(generator.features(styles("other")), styles("other")).clamp(-1, 1),
            "rearranged": laid_out(rearranger.codebook.assign(generator.features(styles("target")).map)),
            "synthesised": laid_out(mapper.network(one_hot).softmax(dim=1)),
            "data": torch.stack([drawn[place]["image"] for place in range(block, block + COUNT)]),
            "held out": torch.stack([drawn[place]["image"] for place in range(COUNT)]),
        }


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_those_of_the_metrics_called_directly(
    pieces: dict[str, str], measured: tuple[Quality, Path], seed: int
) -> None:
    images = direct(pieces, seed)
    for row in ROWS:
        real = images["held out"] if row in ("plain", "synthesised", "data") else images["other"]
        generated = images["plain" if row == "again" else row]
        extractor = JudgeFeatures(load_judge(pieces["judge"]))
        metrics = [FrechetDistance(extractor), KernelDistance(extractor), ManifoldScores(extractor)]
        for metric in metrics:
            metric.update(real, real=True)
            metric.update(generated, real=False)
        found = part(measured[1], f"{row}-seed{seed}")
        frechet, kernel, manifold = (metric.compute() for metric in metrics)
        assert found["frechet"] == pytest.approx(float(frechet), rel=1e-4)
        assert found["kernel"] == pytest.approx(float(kernel), rel=1e-4, abs=1e-8)
        assert [found[name] for name in ("precision", "recall", "density", "coverage")] == pytest.approx(
            list(map(float, manifold)), abs=1e-6
        )


def test_the_report_shows_intervals_over_the_seeds_and_what_decides_them(measured: tuple[Quality, Path]) -> None:
    protocol, folder = measured
    content = json.loads((folder / "report.json").read_text())
    (table,) = content["tables"]
    assert len(table["rows"]) == len(ROWS)
    assert table["columns"][2:4] == ["Fréchet", "kernel distance"]  # not Inception's: neither FID nor KID
    for key, row in zip(ROWS, table["rows"], strict=True):
        values = [part(folder, f"{key}-seed{seed}")["frechet"] for seed in SEEDS]
        assert row[2] == pytest.approx(mean_interval(values)._asdict())
    record = content["record"]
    judge = load_judge(protocol.judge if isinstance(protocol.judge, str) else "")
    assert record["extractor"]["sha256"] == judge.fingerprint
    assert record["fingerprints"]["generator"] == protocol.models.generator.fingerprint
    assert record["seeds"] == list(SEEDS)
    assert record["truncation"] == 0.9
    assert record["data"]["split"] == "test"
    assert {"versions", "commit", "machine"} <= record.keys()
    assert "no FID and no KID" in (folder / "report.md").read_text()
    assert (folder / "quality.png").is_file()


def test_the_size_of_batches_and_the_order_of_seeds_change_nothing(
    pieces: dict[str, str], measured: tuple[Quality, Path], tmp_path: Path
) -> None:
    measure(small(pieces, seeds=SEEDS, batch_size=5), tmp_path / "other")
    for row in ROWS:
        for seed in SEEDS:
            assert part(tmp_path / "other", f"{row}-seed{seed}") == pytest.approx(
                part(measured[1], f"{row}-seed{seed}"), rel=1e-6, abs=1e-6
            )
    reversed_ = small(pieces, seeds=SEEDS[::-1])
    measure(reversed_, tmp_path / "reversed")
    for row in set(ROWS) - {"data"}:  # whose images go by the place of the repeat
        name = f"{row}-seed{SEEDS[0]}"
        assert part(tmp_path / "reversed", name) == pytest.approx(part(measured[1], name), rel=1e-6, abs=1e-6)


def test_an_interrupted_run_continues_where_it_was(
    pieces: dict[str, str], measured: tuple[Quality, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = small(pieces, seeds=SEEDS)
    laid_out, calls = Samples.laid_out, 0

    def interrupted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return laid_out(*arguments)

    monkeypatch.setattr(Samples, "laid_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(protocol, tmp_path / "run")
    done = {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "run" / "parts").iterdir()}
    assert 0 < len(done) < len(ROWS) * len(SEEDS)
    assert not (tmp_path / "run" / "report.json").exists()
    monkeypatch.setattr(Samples, "laid_out", laid_out)
    report = measure(small(pieces, seeds=SEEDS), tmp_path / "run")
    for name, before in done.items():
        assert (tmp_path / "run" / "parts" / f"{name}.json").stat().st_mtime_ns == before
    for row in ROWS:
        for seed in SEEDS:
            name = f"{row}-seed{seed}"
            assert part(tmp_path / "run", name) == pytest.approx(part(measured[1], name), rel=1e-6, abs=1e-6)
    # Now nothing is left to measure.
    monkeypatch.setattr("sisug.evaluation.quality.rows_of", None)
    again = measure(small(pieces, seeds=SEEDS), tmp_path / "run")
    assert again.tables == report.tables


def test_other_settings_do_not_mix_with_what_is_there(pieces: dict[str, str], measured: tuple[Quality, Path]) -> None:
    with pytest.raises(ConfigError, match="images"):
        Workspace(measured[1], identity_of(small(pieces, seeds=SEEDS, images=13)))


def test_statistics_of_the_data_are_kept_and_never_taken_for_those_of_other_data(
    pieces: dict[str, str], tmp_path: Path, cache: Path
) -> None:
    data = write_data(tmp_path / "data", 2 * COUNT)
    settings = {"data": str(data), "split": "all", "mapper": None, "generator": generator_of(pieces)}
    first = measure(small(pieces, **settings), tmp_path / "first")
    (kept,) = (cache / "statistics").iterdir()
    before = kept.stat().st_mtime_ns
    second = measure(small(pieces, **settings), tmp_path / "second")
    assert kept.stat().st_mtime_ns == before
    assert first.tables == second.tables
    for number in range(2 * COUNT):
        save(data / "images" / f"{number:03d}.png", image(number + 500))
    third = measure(small(pieces, **settings), tmp_path / "third")
    assert len(list((cache / "statistics").iterdir())) == 2
    assert third.tables[0].rows[0][2:] != first.tables[0].rows[0][2:]


def generator_of(pieces: dict[str, str]) -> str:
    return load_mapper(pieces["mapper"]).rearranger.generator.source


def test_rows_are_those_that_the_pieces_allow(pieces: dict[str, str], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", 2 * COUNT)
    settings: dict[str, Any] = {"data": str(data), "split": "test", "mapper": None, "generator": generator_of(pieces)}
    (alone,) = measure(small(pieces, **settings), tmp_path / "alone").tables
    assert [row[0] for row in alone.rows] == ["plain samples"]
    rearranger = str(Path(pieces["mapper"]).parent / "rearranger.safetensors")
    (first,) = measure(small(pieces, **settings, rearranger=rearranger), tmp_path / "stage1").tables
    assert len(first.rows) == 3
    both = small(pieces, data=str(data), split="test")
    assert both.first_condition() == 0
    (table,) = measure(both, tmp_path / "both").tables
    assert any("the very held-out images" in note for note in table.notes)
    assert len(table.rows) == 4  # too few images to compare them among themselves


def test_a_mapper_that_reads_edges_needs_no_masks(
    tiny_generator_file: Path, tmp_path: Path, pieces: dict[str, str]
) -> None:
    (tmp_path / "pieces").mkdir()
    edges = write_pieces(tmp_path / "pieces", tiny_generator_file, kind="edges")
    for number in range(COUNT):
        save(tmp_path / "photos" / f"{number}.png", image(number))
    settings = {"data": str(tmp_path / "photos"), "split": "all"}
    (table,) = measure(small(edges, **settings), tmp_path / "run").tables
    assert table.rows[1][0] == "synthesised from conditions of held-out images"
    measure(small(edges, **settings, batch_size=5), tmp_path / "other")
    name = "synthesised-seed3"
    assert part(tmp_path / "run", name) == pytest.approx(part(tmp_path / "other", name), rel=1e-6, abs=1e-6)
    with pytest.raises(ConfigError, match="without masks"):
        identity_of(small(pieces, **settings))


def test_what_cannot_be_measured_is_refused_before_anything_is(
    pieces: dict[str, str], tmp_path: Path, tiny_generator_file: Path
) -> None:
    for count in (0, 1, 5):
        with pytest.raises(ConfigError, match=f"images {count}"):
            small(pieces, images=count)
    data = write_data(tmp_path / "data", 8)
    with pytest.raises(DataError, match=r"12 images of .*it has 4"):
        identity_of(small(pieces, data=str(data)))
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        identity_of(small(pieces, mapper="none.safetensors"))
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        identity_of(small(pieces, inception="none.pth"))
    network = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 3, "out_channels": 11, "kernel_size": 1}}
    spec = {"network": network, "labels": "avatars", "name": "masks only"}
    masks_only = {"class_path": "sisug.segmentation.judges.NetworkJudge", "init_args": spec}
    with pytest.raises(ConfigError, match="it gives masks only"):
        identity_of(small(pieces, judge=masks_only))
    with pytest.raises(ConfigError, match="no generator"):
        identity_of(small(pieces, mapper=None))
    with pytest.raises(ConfigError, match="truncation 2"):
        small(pieces, truncation=2.0)
    with pytest.raises(ConfigError, match="confidence"):
        small(pieces, confidence=1.0)
    with pytest.raises(ConfigError, match="imags"):
        make_protocol("quality", {"imags": 12})
    other = tmp_path / "other.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_native(other, Generator(6, 7, {4: 8, 8: 8, 16: 6}, mapping_layers=2))
    write_rearranger(random_rearranger(other), tmp_path / "foreign.safetensors")
    with pytest.raises(SisugError, match="two generators"):
        identity_of(small(pieces, rearranger=str(tmp_path / "foreign.safetensors")))


def test_images_with_nan_give_no_number(
    pieces: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Samples, "laid_out", lambda *_: torch.full((COUNT, 3, 16, 16), torch.nan))
    with pytest.raises(DataError, match="NaN"):
        measure(small(pieces), tmp_path / "run")
    assert not (tmp_path / "run" / "parts" / "synthesised-seed3.json").exists()
    assert not (tmp_path / "run" / "report.json").exists()


def test_only_inceptions_published_weights_give_a_fid() -> None:
    network = InceptionFeatures.__new__(InceptionFeatures)
    nn.Module.__init__(network)
    network.name, network.num_features, network.fingerprint, network.official = "inception-x", 2048, "f", True
    assert heads(NamedExtractor(network))[:2] == ("FID", "KID")
    network.official = False
    assert not is_official(NamedExtractor(network))
    assert heads(NamedExtractor(network))[:2] == ("Fréchet", "kernel distance")


def test_settings_are_frozen(pieces: dict[str, str]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small(pieces).images = 3  # type: ignore[misc]


def test_a_judge_of_other_classes_gives_features_all_the_same(pieces: dict[str, str], tmp_path: Path) -> None:
    identity_of(small(pieces, judge=str(write_judge(tmp_path, THREE))))
