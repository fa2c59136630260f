"""The online-clustering callback: schedule, averaging, label identity, and agreement between ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from sisug.errors import CodebookError, ConfigError
from sisug.generators import load_generator
from sisug.proxies import Codebook, OnlineClustering
from sisug.proxies.kmeans import fit_kmeans
from sisug.proxies.online_clustering import apply_fit


class CountingModule(LightningModule):
    """Counts images and learns one number: the least that the callback can work on."""

    def __init__(self, generator: str, clusters: int = 4, normalisation: str = "instance") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = load_generator(generator, 8)
        self.codebook = Codebook(clusters, self.generator.feature_channels, normalisation)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.fitted_at: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.fitted_at.append(int(self.codebook.fitted_at))
        self.images_seen += 4 * self.trainer.world_size

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        return torch.utils.data.DataLoader(torch.zeros(48, 1), batch_size=4)  # type: ignore[arg-type]


def train(module: LightningModule, callback: OnlineClustering, tmp_path: Any, **settings: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **settings,
    )
    trainer.fit(module)
    return trainer


def test_schedule_is_in_images_and_ends_at_the_freeze(tiny_generator_file, tmp_path):
    module = CountingModule(str(tiny_generator_file))
    train(module, OnlineClustering(16, 32, refresh_every=12, freeze_after=30, iterations=5, restarts=1), tmp_path)
    assert module.fitted_at == [0, 0, 0, 12, 12, 12, 24, 24, 24, 24, 24, 24]


def test_a_fitted_codebook_is_kept(tiny_generator_file, tmp_path):
    module = CountingModule(str(tiny_generator_file))
    centroids = torch.randn(4, module.generator.feature_channels)
    module.codebook.update(centroids, 1.0, torch.ones(4), 0)
    train(module, OnlineClustering(16, 32, refresh_every=0), tmp_path)
    assert torch.equal(module.codebook.centroids, centroids)


@pytest.mark.parametrize("normalisation", ["instance", "standard", "look-free"])
def test_first_fit_is_as_good_as_scikit_learn(tiny_generator_file, tmp_path, normalisation):
    from sklearn.cluster import KMeans

    module = CountingModule(str(tiny_generator_file), normalisation=normalisation)
    callback = OnlineClustering(32, 64, refresh_every=0, restarts=4)
    train(module, callback, tmp_path)
    module.images_seen.zero_()  # the samples that the fit saw
    rows = callback._sample(module.trainer, module)[1].flatten(0, 1)
    reference = KMeans(4, n_init=4, random_state=0).fit(rows.numpy())
    inertia = torch.cdist(rows, module.codebook.centroids).min(dim=1).values.square().mean()
    assert float(inertia) <= 1.02 * reference.inertia_ / len(rows)


def test_refresh_is_the_running_mean_of_what_each_cluster_saw():
    codebook = Codebook(2, 1, "standard")
    codebook.update(torch.tensor([[0.0], [10.0]]), 1.0, torch.tensor([30.0, 10.0]), 0)
    rows = torch.tensor([[1.0]] * 10 + [[12.0]] * 30)
    fit = fit_kmeans(rows, 2, seed=0, initial=codebook.centroids)
    refresh = apply_fit(codebook, fit, rows.reshape(1, 1, 8, 5), images_seen=5, seconds=0.0)
    np.testing.assert_allclose(codebook.centroids.numpy(), [[0.25], [11.5]])
    np.testing.assert_allclose(codebook.rows_seen.numpy(), [40, 40])
    assert refresh.relabelled == 0.0
    assert (refresh.smallest, refresh.largest) == (0.25, 0.75)


def test_relabelled_share_counts_pixels_that_changed():
    codebook = Codebook(2, 1, "standard")
    codebook.update(torch.tensor([[0.0], [4.0]]), 1.0, torch.zeros(2), 0)
    rows = torch.tensor([[0.0]] * 8 + [[3.0]] * 4 + [[20.0]] * 8)
    fit = fit_kmeans(rows, 2, seed=0, initial=codebook.centroids, iterations=20)
    refresh = apply_fit(codebook, fit, rows.reshape(1, 1, 4, 5), images_seen=1, seconds=0.0)
    assert refresh.relabelled == pytest.approx(4 / 20), "the four at 3 went over to the cluster of the zeros"


def test_labels_keep_their_identity_over_refreshes(tiny_generator_file, tmp_path):
    module = CountingModule(str(tiny_generator_file))
    callback = OnlineClustering(32, 64, refresh_every=12, freeze_after=100, restarts=1)
    shares: list[float] = []
    original = callback.cluster

    def spy(trainer: Trainer, pl_module: LightningModule) -> Any:
        refresh = original(trainer, pl_module)
        shares.append(refresh.relabelled)
        return refresh

    callback.cluster = spy  # type: ignore[method-assign]
    train(module, callback, tmp_path)
    assert len(shares) == 4
    assert max(shares) < 0.2, shares


def test_too_few_rows_is_our_error(tiny_generator_file, tmp_path):
    module = CountingModule(str(tiny_generator_file), clusters=50)
    with pytest.raises(CodebookError, match="40 rows for 50 clusters"):
        train(module, OnlineClustering(4, 10), tmp_path)


def test_counts_are_checked():
    with pytest.raises(ConfigError, match="sample_images 0"):
        OnlineClustering(sample_images=0)
