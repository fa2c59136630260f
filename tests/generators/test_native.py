"""Native generator files: round trips, inferred settings, and files that are not what they should be."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sisug.common.fingerprint import fingerprint
from sisug.errors import CheckpointError, RunError
from sisug.generators import Discriminator, Generator, load_discriminator, load_generator
from sisug.generators.native import write_native


@pytest.mark.parametrize(("z_dim", "w_dim", "layers", "clamp"), [(5, 7, 2, None), (8, 8, 8, 256.0)])
def test_round_trip_infers_every_setting(tmp_path, z_dim, w_dim, layers, clamp):
    generator = Generator(
        z_dim, w_dim, {4: 6, 8: 5, 16: 4}, mapping_layers=layers, clamp=clamp, mapping_lr_multiplier=0.02
    )
    mark = write_native(tmp_path / "g.safetensors", generator, images_seen=7)
    backbone = load_generator(tmp_path / "g.safetensors")
    z = torch.randn(2, z_dim)
    torch.testing.assert_close(backbone(z), generator(z))
    assert backbone.fingerprint == mark
    assert json.loads((tmp_path / "g.json").read_text())["images_seen"] == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.json", "g.safetensors"]


def test_discriminator_travels_with_the_generator(tmp_path, tiny_generator_file):
    generator, discriminator = Generator(4, 4, {4: 4, 8: 4}), Discriminator({4: 6, 8: 5})
    path = tmp_path / "both.safetensors"
    mark = write_native(path, generator, discriminator)
    loaded = load_discriminator(path)
    assert loaded is not None
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(loaded(images), discriminator(images))
    assert load_generator(path).fingerprint == mark, "the discriminator is no part of the generator's fingerprint"
    assert load_discriminator(tiny_generator_file) is None


def test_fingerprint_depends_on_names_shapes_and_values():
    base = {"a": torch.arange(4.0), "b": torch.zeros(2)}
    assert fingerprint(base) == fingerprint(dict(reversed(base.items())))
    others = [
        {"a": torch.arange(4.0).reshape(2, 2), "b": torch.zeros(2)},
        {"c": torch.arange(4.0), "b": torch.zeros(2)},
        {"a": torch.arange(4.0) + 1e-7, "b": torch.zeros(2)},
    ]
    assert len({fingerprint(x) for x in [base, *others]}) == 4
    assert fingerprint({name: value.half() for name, value in base.items()}) == fingerprint(base)


def test_missing_file_names_the_presets(tmp_path):
    with pytest.raises(CheckpointError, match=r"was not found.*presets are: .*avatars"):
        load_generator(tmp_path / "none.safetensors")


def test_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="it is a folder"):
        load_generator(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 not safetensors", "cut short"),
        (b"\xff" * 64, "neither a pickle nor a file of torch"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "g.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{message}.*Remedy"):
        load_generator(path)


def test_truncated_file_is_refused(tmp_path, tiny_generator_file):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny_generator_file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cannot be read.*not fully covered.*copy it again"):
        load_generator(path)


def change(path, tmp_path, edit):
    tensors = load_file(path)
    edit(tensors)
    changed = tmp_path / "changed.safetensors"
    save_file(tensors, changed)
    return changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("synthesis.b8.conv0.bias"), "missing synthesis.b8.conv0.bias"),
        (lambda t: t.pop("synthesis.b8.conv1.weight"), "synthesis.b8.conv1.weight' is missing"),
        (
            lambda t: t.update({"synthesis.b8.skip.weight": torch.zeros(1)}),
            r"synthesis.b8.skip.weight has shape \(1,\)",
        ),
        (lambda t: t.update({"synthesis.b8.torgb.bias": torch.zeros(4)}), "has shape"),
        (lambda t: t["mapping.fc0.weight"].fill_(float("nan")), "mapping.fc0.weight is not finite"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("mapping")], "its mapping network is missing"),
        (lambda t: [t.pop(k) for k in list(t) if ".b8." in k], "holds no StyleGAN2 generator"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, tiny_generator_file, edit, message):
    with pytest.raises(CheckpointError, match=message):
        load_generator(change(tiny_generator_file, tmp_path, edit))


def test_broken_sidecar_says_that_it_can_go(tmp_path, tiny_generator_file):
    path = tmp_path / "g.safetensors"
    path.write_bytes(tiny_generator_file.read_bytes())
    (tmp_path / "g.json").write_text("{broken")
    with pytest.raises(CheckpointError, match="delete it: the tensors suffice"):
        load_generator(path)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "g.safetensors"
    write_native(path, Generator(4, 4, {4: 4}))
    before = path.read_bytes()

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sisug.generators.native.save", full_disk)
    with pytest.raises(RunError, match="disk is full"):
        write_native(path, Generator(4, 4, {4: 4}))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
