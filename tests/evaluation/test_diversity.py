"""Protocol diversity: numbers against the metrics called directly, what stands beside them, resumption, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.pieces import measure, part, write_pieces
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from sisug.common.seeding import fixed_latents
from sisug.data.avatars import AvatarsDataset
from sisug.errors import ConfigError, DataError
from sisug.evaluation.commands import identity_of
from sisug.evaluation.diversity import Diversity
from sisug.evaluation.samples import Samples
from sisug.labels.label_sets import AVATARS
from sisug.mapper.trained import load_mapper
from sisug.segmentation.loading import load_judge

MASKS, LOOKS = 4, 3
KEYS = ("looks", "plain", "masks", "self")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # no LPIPS weights


@pytest.fixture(scope="module")
def pieces(tiny_generator_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_pieces(tmp_path_factory.mktemp("pieces"), tiny_generator_file)


def small(pieces: dict[str, str], **settings: Any) -> Diversity:
    return Diversity(**(pieces | {"masks": MASKS, "looks": LOOKS, "seeds": (4,)} | settings))


def direct(pieces: dict[str, str]) -> dict[str, Tensor]:
    """The images of each row, without the protocol: (group, image, 3, height, width)."""
    mapper = load_mapper(pieces["mapper"])
    generator, codebook, network = (
        mapper.rearranger.generator,
        mapper.rearranger.codebook,
        mapper.rearranger.network,
    )
    z = fixed_latents(torch.arange(MASKS * LOOKS), generator.z_dim, seed=4, purpose="evaluation look")
    drawn = AvatarsDataset("test", MASKS, 16)
    masks = torch.stack([drawn[place]["mask"] for place in range(MASKS)])

    @torch.no_grad()
    def make(numbers: list[int], layouts: list[int] | None, *, own: bool = False) -> Tensor:
        ws = generator.map(z[numbers], 0.9)
        features = generator.features(ws)
        mask = codebook.assign(features.map)
        if own:
            features = network(features, mask, mask, ws)
        elif layouts is not None:
            one_hot = nn.functional.one_hot(masks[layouts], AVATARS.num_classes).permute(0, 3, 1, 2).float()
            features = network(features, mask, mapper.network(one_hot).softmax(dim=1), ws)
        return generator.render(features, ws).clamp(-1, 1)

    groups = [list(range(first, first + LOOKS)) for first in range(0, MASKS * LOOKS, LOOKS)]
    firsts = [group[0] for group in groups]
    return {
        "looks": torch.stack([make(group, [place] * LOOKS) for place, group in enumerate(groups)]),
        "plain": torch.stack([make(group, None) for group in groups]),
        "masks": torch.stack(
            [make([group[0]] * LOOKS, [(place + step) % MASKS for step in range(LOOKS)])
             for place, group in enumerate(groups)]
        ),
        "self": torch.stack([make(firsts, None, own=True), make(firsts, None)], dim=1),
    }  # fmt: skip


def test_numbers_are_those_of_a_direct_computation(pieces: dict[str, str], tmp_path: Path) -> None:
    report = measure(small(pieces), tmp_path / "run")
    images, judge = direct(pieces), load_judge(pieces["judge"])
    expected = {}
    for key in KEYS[:3]:
        rows = [judge.features(group).double() for group in images[key]]
        # Mean over the pairs of a group, then over groups.
        expected[key] = float(torch.stack([nn.functional.pdist(group).mean() for group in rows]).mean())
        assert part(tmp_path / "run", f"{key}-seed4")["distance"] == pytest.approx(expected[key], rel=1e-4)
    psnr = [peak_signal_noise_ratio(plain.numpy(), made.numpy(), data_range=2) for made, plain in images["self"]]
    assert part(tmp_path / "run", "self-seed4")["psnr"] == pytest.approx(sum(psnr) / MASKS, rel=1e-4)
    looks, own = report.tables
    assert looks.columns[1] == "euclidean-small-avatars"
    assert (
        [row[2].mean for row in looks.rows]
        == pytest.approx(  # type: ignore[union-attr]
            [expected[key] / expected["plain"] for key in KEYS[:3]], rel=1e-4
        )
    )
    assert own.columns == ("PSNR, dB",)
    assert (tmp_path / "run" / "diversity.png").is_file()


def test_a_generator_whose_mask_decides_all_has_no_diversity(
    pieces: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_the_mask(self: Samples, rearranger: Any, ws: Tensor, target: Tensor) -> Tensor:
        labels = target if target.ndim == 3 else target.argmax(dim=1)
        return (labels.float() / 2 - 1)[:, None].expand(-1, 3, -1, -1).repeat_interleave(2, 2).repeat_interleave(2, 3)

    monkeypatch.setattr(Samples, "laid_out", only_the_mask)
    measure(small(pieces), tmp_path / "run")
    assert part(tmp_path / "run", "looks-seed4")["distance"] == 0
    assert part(tmp_path / "run", "masks-seed4")["distance"] > 0


def test_batches_seeds_and_interruptions_change_nothing(
    pieces: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(small(pieces, seeds=(4, 7)), tmp_path / "one")
    plain, calls = Samples.plain, 0

    def interrupted(self: Samples, ws: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return plain(self, ws)

    monkeypatch.setattr(Samples, "plain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(small(pieces, seeds=(7, 4), batch_size=2), tmp_path / "other")
    monkeypatch.setattr(Samples, "plain", plain)
    measure(small(pieces, seeds=(7, 4), batch_size=2), tmp_path / "other")
    for key in KEYS:
        for seed in (4, 7):
            name = f"{key}-seed{seed}"
            assert part(tmp_path / "other", name) == pytest.approx(part(tmp_path / "one", name), rel=1e-6, abs=1e-6)


def test_without_a_mapper_the_masks_are_those_of_samples(pieces: dict[str, str], tmp_path: Path) -> None:
    rearranger = str(Path(pieces["mapper"]).parent / "rearranger.safetensors")
    report = measure(small(pieces, mapper=None, rearranger=rearranger), tmp_path / "run")
    assert report.record["condition"] == "proxy masks of samples"
    assert report.record["data"] is None
    assert part(tmp_path / "run", "looks-seed4")["distance"] > 0


def test_what_cannot_be_measured_is_refused_before_anything_is(pieces: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a distance needs 2 looks"):
        small(pieces, looks=1)
    with pytest.raises(ConfigError, match="masks 2, looks 3"):
        small(pieces, masks=2)
    with pytest.raises(ConfigError, match="own rearranger"):
        small(pieces, rearranger="avatars")
    with pytest.raises(ConfigError, match="LPIPS without weights"):
        identity_of(small(pieces, lpips=True))
    generator = load_mapper(pieces["mapper"]).rearranger.generator.source
    with pytest.raises(ConfigError, match="a generator alone"):
        identity_of(small(pieces, mapper=None, generator=generator))
    with pytest.raises(DataError, match="does not exist"):
        identity_of(small(pieces, data=str(tmp_path / "nowhere")))
