"""Random weights of torch-fidelity's Inception in its own file format: the real ones are a download."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch_fidelity import feature_extractor_inceptionv3 as fidelity


def write_random_inception(path: Path, seed: int = 0) -> Path:
    """Write a file that `InceptionFeatures` and torch-fidelity read."""
    network = fidelity.FeatureExtractorInceptionV3
    with (
        mock.patch.object(fidelity, "load_state_dict_from_url", return_value={}),
        mock.patch.object(network, "load_state_dict"),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(seed)
        weights = network("inception-v3-compat", ["2048"]).state_dict()
    torch.save(weights, path)
    return path
