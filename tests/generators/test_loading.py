"""The door of generators: presets, files of registered families, classes by name, and objects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sisug.errors import CheckpointError, ConfigError
from sisug.generators import Features, GeneratorBackbone, StyleGAN2Backbone, load_generator, recorded_generator
from sisug.generators import loading as loading_module


class Flat(GeneratorBackbone):
    """Images of one colour a sample, 8 px, cut at 4 px."""

    def __init__(self, brightness: float = 1.0, split: int = 4) -> None:
        super().__init__()
        self.resolution, self.split, self.feature_channels = 8, split, 3
        self.num_ws, self.z_dim, self.w_dim = 1, 3, 3
        self.register_buffer("brightness", torch.tensor(brightness))
        self.freeze()

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return (z * truncation)[:, None]

    def features(self, ws: Tensor) -> Features:
        maps = ws[:, 0, :, None, None].expand(-1, -1, self.split, self.split)
        return Features(maps, torch.zeros_like(maps))

    def render(self, features: Features, ws: Tensor) -> Tensor:
        return torch.tanh(features.map * self.brightness).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def layers(self, ws: Tensor) -> list[Tensor]:
        return [self.features(ws).map]


FLAT = f"{__name__}.Flat"


def test_a_class_is_named_by_its_full_name_or_class_path() -> None:
    for named in (FLAT, {"class_path": FLAT}, {"class_path": FLAT, "init_args": {}}):
        backbone = load_generator(named)
        assert isinstance(backbone, Flat)
        assert backbone.reference == {"class_path": FLAT, "init_args": {}}
        assert backbone.source == FLAT


def test_arguments_reach_the_class_and_the_reference_brings_it_back() -> None:
    # The second form is what `--x.class_path C --x.init_args.brightness 2` becomes.
    for named in ({"class_path": FLAT, "init_args": {"brightness": 2.0}}, {"class_path": FLAT, "brightness": 2.0}):
        backbone = load_generator(named)
        assert float(backbone.brightness) == 2
        again = load_generator(backbone.reference)
        assert again.fingerprint == backbone.fingerprint != load_generator(FLAT).fingerprint


def test_the_split_goes_to_a_class_that_takes_one() -> None:
    assert load_generator(FLAT, 2).split == 2
    with pytest.raises(ConfigError, match=r"split 2.*is cut at 4 px"):
        load_generator({"class_path": FLAT, "init_args": {"split": 4}}, 2)
    with pytest.raises(ConfigError, match=r"split 2.*is cut at 4 px"):
        load_generator(Flat(), 2)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("no.such.Module", "No module named"),
        ("sisug.generators.NoSuchClass", "has no attribute"),
        ("pathlib.Path", "no subclass of GeneratorBackbone"),
        ({"class_path": FLAT, "init_args": {"size": 3}}, "unexpected keyword argument 'size'.*brightness, split"),
        ({"init_args": {}}, "named by class_path"),
        ({"class_path": FLAT, "init_args": 3}, "named by class_path"),
        ({"class_path": FLAT, "init_args": {"brightness": torch.ones(1)}}, "an argument of type Tensor"),
    ],
)
def test_what_is_no_generator_is_refused(named: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_generator(named)  # type: ignore[arg-type]


def test_a_missing_file_is_no_class(tmp_path: Path) -> None:
    for name in ("nowhere.pt", str(tmp_path / "a.safetensors"), "some.net.pkl"):
        with pytest.raises(CheckpointError, match=r"was not found.*no such file"):
            load_generator(name)


def test_a_class_without_its_numbers_is_refused() -> None:
    class Unfinished(Flat):
        def __init__(self) -> None:
            super().__init__()
            del self.z_dim

    with pytest.raises(ConfigError, match="Unfinished has no z_dim"):
        load_generator(Unfinished())


def test_an_object_is_taken_as_it_is() -> None:
    backbone = Flat()
    assert load_generator(backbone) is backbone


# --- what a file names ---------------------------------------------------------------------------------------------


def test_a_file_may_not_name_foreign_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Gen: pass\n")
    for recorded in ({"class_path": "hostile.Gen", "init_args": {}}, "hostile.Gen"):
        with pytest.raises(CheckpointError):
            recorded_generator(recorded, None, None, Path("x.ckpt"))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError, match=r"names the generator 'hostile.Gen'.*give it yourself.*option generator"):
        recorded_generator({"class_path": "hostile.Gen", "init_args": {}}, None, None, Path("x.ckpt"))


def test_what_the_user_names_too_may_be_built() -> None:
    recorded = {"class_path": FLAT, "init_args": {"brightness": 2.0}}
    with pytest.raises(CheckpointError):
        recorded_generator(recorded, None, None, Path("x.ckpt"))
    for given in (FLAT, recorded, Flat(2.0)):
        backbone = recorded_generator(recorded, None, given, Path("x.ckpt"))
        assert isinstance(backbone, Flat)
        assert float(backbone.brightness) == 2
    other = recorded_generator(recorded, None, {"class_path": FLAT, "init_args": {"brightness": 3.0}}, Path("x"))
    assert float(other.brightness) == 3


def test_an_object_of_python_is_asked_for() -> None:
    recorded = loading_module.generator_reference(StyleGAN2Backbone(load_generator("avatars").generator))
    with pytest.raises(CheckpointError, match="it was made in Python"):
        recorded_generator(recorded, None, None, Path("x.ckpt"))


# --- families ------------------------------------------------------------------------------------------------------


def read_flat(path: Path, split: int | None, precision: str) -> GeneratorBackbone:
    return Flat(5.0, split or 4)


@pytest.mark.parametrize("where", ["metadata", "sidecar"])
def test_a_family_is_told_by_the_format_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setitem(loading_module.FAMILIES, "flat", f"{__name__}:read_flat")
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={"format": "flat-1" if where == "metadata" else "pt"})
    if where == "sidecar":
        path.with_suffix(".json").write_text('{"format": "flat-1"}')
    backbone = load_generator(path, 2)
    assert (type(backbone), float(backbone.brightness), backbone.split) == (Flat, 5, 2)
    assert backbone.reference == backbone.source == str(path)


# --- one read ------------------------------------------------------------------------------------------------------


def test_one_read_gives_generator_and_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read = [], loading_module.read_source

    def counted(*arguments: object, **settings: object) -> object:
        reads.append(arguments)
        return read(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(loading_module, "read_source", counted)
    backbone = load_generator("avatars")
    first, second = backbone.discriminator(), backbone.discriminator()
    assert len(reads) == 1
    assert first is not None
    assert second is not None
    assert first(backbone.images(backbone.map(torch.randn(4, 128)))).shape == (4, 1)
    with torch.no_grad():
        next(first.parameters()).add_(1)
    assert not torch.equal(next(first.parameters()), next(second.parameters())), "each call gives a copy"
    assert not any("discriminator" in name for name in backbone.state_dict())


def test_a_known_fingerprint_is_computed_anew_once_weights_change() -> None:
    backbone = load_generator("avatars")
    before = backbone.fingerprint
    with torch.no_grad():
        next(backbone.parameters()).mul_(1.5)
    assert backbone.fingerprint != before
