"""LinearGAN's files: GenForce's names in their earlier layout, bare and with channels last."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from generators.checkpoint_files import genforce_generator, random_model, write_native

from sisug.generators import load_generator


def test_early_layout_gives_the_same_generator(tmp_path: Path) -> None:
    model = random_model()
    early = {}
    for name, value in genforce_generator(model).items():
        name = re.sub(r"(dense\d+|style)\.weight$", r"\1.fc.weight", name)
        if re.search(r"(layer|output)\d+\.weight$", name):
            value = value.permute(2, 3, 1, 0).contiguous()
        early[name] = value
    torch.save(early, tmp_path / "stylegan2_bedroom_generator.pth")
    loaded = load_generator(tmp_path / "stylegan2_bedroom_generator.pth")
    expected = load_generator(write_native(tmp_path / "native.safetensors", model))
    assert loaded.fingerprint == expected.fingerprint
    z = torch.randn(2, loaded.z_dim)
    assert torch.equal(loaded(z), expected(z))
