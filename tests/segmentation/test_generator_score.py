"""`sisug generator score`: the table against distances and shares computed apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sisug.common.seeding import fixed_latents
from sisug.data.avatars.cache import MaterialisedAvatars
from sisug.generators import load_generator
from sisug.metrics import FrechetDistance
from sisug.segmentation.generator_score import score
from sisug.segmentation.loading import judge_features, load_judge

SAMPLES = 24


@pytest.mark.filterwarnings("ignore:.*covariance is singular")
def test_figures_equal_those_computed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path))
    text = score(["avatars"], samples=SAMPLES, seed=3, records=tmp_path / "records")
    judge, generator = load_judge(), load_generator("avatars")
    distance = FrechetDistance(judge_features(), judge.name)
    real = torch.stack([MaterialisedAvatars("test", SAMPLES, 64)[i]["image"] for i in range(SAMPLES)])
    with torch.no_grad():
        z = fixed_latents(torch.arange(SAMPLES), generator.z_dim, seed=3, purpose="score")
        fake = generator(z, 1.0).clamp(-1, 1)
    distance.update(real, real=True)
    distance.update(fake, real=False)
    record = json.loads((tmp_path / "records/avatars.json").read_text())
    assert record["value"] == pytest.approx(float(distance.compute()), rel=1e-4)
    assert record["samples"] == {"real": SAMPLES, "generated": SAMPLES}
    assert record["fingerprints"]["generator"] == generator.fingerprint

    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    shares = {
        name: (judge.segment(x) == i).double().mean() for i, name in enumerate(judge.labels.classes) for x in [real]
    }
    found = (judge.segment(fake) == 2).double().mean()
    assert judge.labels.classes[2] == "hair"
    assert float(rows["hair"][1]) == pytest.approx(float(shares["hair"]), abs=1e-4)
    assert float(rows["hair"][-2]) == pytest.approx(float(found), abs=1e-4)
    assert (tmp_path / "records/drawn-another set.json").exists()


def test_an_unknown_generator_is_refused_before_anything_is_drawn(
    sisug: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SISUG_CACHE", str(tmp_path / "cache"))
    assert sisug("generator", "score", "--generators", "[none.safetensors]") == 2
    assert "'none.safetensors' was not found" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
