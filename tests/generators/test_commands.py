"""`sisug generator convert`: from a training checkpoint to the file that all stages take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from sisug.common.fingerprint import fingerprint
from sisug.generators import load_discriminator, load_generator
from sisug.generators.loading import load_network
from sisug.generators.module import GeneratorModule

Command = Callable[..., int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps: enough for averaged weights to differ from the trained ones."""
    torch.manual_seed(0)
    module = GeneratorModule(8, 32, 4, 6, 7, 2, ema_half_life_images=1000)
    with torch.no_grad():  # so that constant noise shows
        for name, parameter in module.generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    module.average.update(module.generator, 100)  # leaves the start behind
    module.average.images.fill_(100_000)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    images = [{"image": torch.rand(3, 8, 8) * 2 - 1, "index": torch.tensor(i)} for i in range(8)]
    batches: DataLoader[Any] = DataLoader(images, batch_size=4)  # type: ignore[arg-type]  # a list is a data set
    trainer.fit(module, batches, batches)
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path


def average_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    prefix = "average.average:"
    return {k.removeprefix(prefix).replace("/", "."): v for k, v in state.items() if k.startswith(prefix)}


def test_the_file_holds_the_averaged_weights_and_the_discriminator(
    sisug: Command, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("generator", "convert", trained, "mine.safetensors", "--licence", "CC0") == 0
    out = tmp_path / "mine.safetensors"
    state = torch.load(trained, weights_only=True)["state_dict"]
    tensors = load_network(out).state_dict()
    averaged = average_of(trained)
    assert averaged
    for name, value in tensors.items():
        assert torch.equal(value, averaged.get(name, state[f"generator.{name}"])), name
    assert not torch.equal(averaged["synthesis.b8.conv1.weight"], state["generator.synthesis.b8.conv1.weight"])
    discriminator = load_discriminator(out)
    assert discriminator is not None
    for name, value in discriminator.state_dict().items():
        assert torch.equal(value, state[f"discriminator.{name}"]), name

    sidecar = json.loads((tmp_path / "mine.json").read_text())
    assert sidecar["fingerprint"] == fingerprint(tensors)
    assert sidecar["images_seen"] == 8
    assert sidecar["licence"] == "CC0"
    checksum = hashlib.sha256(trained.read_bytes()).hexdigest()
    assert sidecar["source"] == {"file": "best.ckpt", "sha256": checksum, "family": "sisug"}
    assert {"command", "data", "commit", "measured"} <= sidecar.keys()
    assert str(tmp_path) not in json.dumps(sidecar["source"])
    assert sidecar["fingerprint"][:12] in capsys.readouterr().out


def test_fp16_halves_the_file_and_says_how_far_images_move(
    sisug: Command, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("generator", "convert", trained, "whole.safetensors") == 0
    assert sisug("generator", "convert", "whole.safetensors", "half.safetensors", "--precision", "fp16") == 0
    whole, half = (tmp_path / f"{name}.safetensors" for name in ("whole", "half"))
    said = capsys.readouterr().out
    z = torch.randn(8, 6)
    a, b = (load_network(path)(z).detach() for path in (whole, half))
    moved = float((a - b).abs().max())
    assert 0 < moved < 1 / 127.5  # below one step of 8-bit colours
    assert "images move by 0.00" in said
    heads = [int.from_bytes(path.read_bytes()[:8], "little") for path in (whole, half)]
    bodies = [path.stat().st_size - head - 8 for path, head in zip((whole, half), heads, strict=True)]
    assert bodies[1] == bodies[0] / 2
    assert load_generator(half).fingerprint == json.loads((tmp_path / "half.json").read_text())["fingerprint"]
    # What is known of the weights goes along.
    assert json.loads((tmp_path / "half.json").read_text())["images_seen"] == 8


def test_weights_too_large_for_fp16_are_refused(
    sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sisug.generators import Generator
    from sisug.generators.native import write_native

    generator = Generator(6, 7, {4: 4, 8: 4}, mapping_layers=1)
    with torch.no_grad():
        generator.mapping.get_submodule("fc0").weight[0, 0] = 1e5
    write_native(tmp_path / "large.safetensors", generator)
    assert sisug("generator", "convert", "large.safetensors", "half.safetensors", "--precision", "fp16") == 2
    assert "mapping.fc0.weight. Remedy: store it in fp32" in capsys.readouterr().err
    assert not (tmp_path / "half.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("none.ckpt", "a.safetensors", "was not found"),
        ("cut.ckpt", "a.safetensors", "cut short"),
        ("text.ckpt", "a.safetensors", "neither a pickle nor a file of torch"),
        ("other.ckpt", "a.safetensors", "a file without a network's weights"),
        ("run.ckpt", "a.safetensors", "no run of GeneratorModule"),
        ("avatars", "a.pt", "name it *.safetensors"),
    ],
)
def test_what_cannot_be_converted(
    sisug: Command,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    out: str,
    message: str,
) -> None:
    (tmp_path / "cut.ckpt").write_bytes(trained.read_bytes()[:-3000])
    (tmp_path / "text.ckpt").write_text("a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    run = {"pytorch-lightning_version": "2.6.4", "state_dict": {"network.0.weight": torch.zeros(3)}}
    torch.save(run, tmp_path / "run.ckpt")
    before = sorted(tmp_path.iterdir())
    assert sisug("generator", "convert", source, out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Remedy: " in error
    assert "Traceback" not in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_converted_file_can_be_trained_further(sisug: Command, trained: Path, tmp_path: Path) -> None:
    assert sisug("generator", "convert", trained, "mine.safetensors") == 0
    again = GeneratorModule(8, init=str(tmp_path / "mine.safetensors"))
    averaged = average_of(trained)
    for name, parameter in again.generator.named_parameters():
        assert torch.equal(parameter, averaged[name]), name
