"""docs/extend.md and the doctests: what they show works, word for word."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sisug.conditions.registry import condition
from sisug.errors import SisugError
from sisug.generators import load_generator
from sisug.testing import ContractError, ToyBackbone, check_backbone

PAGE = Path(__file__).parents[1] / "docs/extend.md"
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.+?)```", PAGE.read_text(), flags=re.DOTALL))
DOCTESTS = ["sisug.common.class_path", "sisug.testing"]


@pytest.fixture
def pages_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page, where Python finds them."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_pages_generator_keeps_the_contract_as_its_own_test_says(pages_files: Path) -> None:
    importlib.import_module("test_my_generator").test_it_keeps_the_contract()
    assert load_generator("my_generator.Blobs").resolution == 64


def test_the_pages_condition_reads_what_it_extracts(pages_files: Path) -> None:
    made = condition("my_condition.Brightness", levels=2)
    Image.new("L", (20, 20), 255).save(pages_files / "white.png")
    encoded = made.load(pages_files / "white.png", 16)
    assert torch.equal(encoded[None], made.extract(torch.ones(1, 3, 16, 16), None, torch.Generator()))
    with pytest.raises(SisugError, match="unexpected keyword argument 'steps'"):
        condition({"class_path": "my_condition.Brightness", "init_args": {"steps": 2}})


def test_the_pages_commands_parse(
    pages_files: Path, sisug: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.chdir(PAGE.parents[1])
    blocks = re.findall(r"```bash\n(.+?)```", PAGE.read_text(), flags=re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    fits = [line for line in commands if line.startswith("sisug fit")]
    assert len(fits) == 2
    for line in fits:
        assert sisug(*shlex.split(line)[1:], "--print_config") == 0


@pytest.mark.parametrize("name", DOCTESTS)
def test_doctests(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


# --- the check itself ----------------------------------------------------------------------------------------------


def test_the_toy_and_the_shipped_generator_keep_the_contract() -> None:
    check_backbone(ToyBackbone(), cut=lambda split: ToyBackbone(split=split))
    check_backbone(ToyBackbone(layered=False), cut=lambda split: ToyBackbone(split=split, layered=False))
    check_backbone(load_generator("avatars"), cut=lambda split: load_generator("avatars", split))


class Thawed(ToyBackbone):
    def requires_grad_(self, requires_grad: bool = True) -> Thawed:
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self


class Halved(ToyBackbone):
    def features(self, ws):  # type: ignore[no-untyped-def]
        features = super().features(ws)
        return features._replace(map=features.map.bfloat16().float())


class Forgetful(ToyBackbone):
    def render(self, features, ws):  # type: ignore[no-untyped-def]
        return super().render(super().features(ws), ws)


class Noisy(ToyBackbone):
    def features(self, ws):  # type: ignore[no-untyped-def]
        features = super().features(ws)
        return features._replace(map=features.map + 1e-3 * torch.randn_like(features.map))


class Fixed(ToyBackbone):
    fingerprint = "0" * 64  # type: ignore[assignment]


class Unbounded(ToyBackbone):
    def images(self, ws):  # type: ignore[no-untyped-def]
        return 3 * super().images(ws)


class Untruncated(ToyBackbone):
    def map(self, z, truncation=1.0):  # type: ignore[no-untyped-def]
        return super().map(z)


class Backwards(ToyBackbone):
    def layers(self, ws):  # type: ignore[no-untyped-def]
        return super().layers(ws)[::-1]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Thawed, "would be trained"),
        (Halved, "no layer is what"),
        (Forgetful, "does not depend on the features"),
        (Noisy, "called again"),
        (Fixed, "does not follow the weights"),
        (Unbounded, "within \\[-1, 1\\]"),
        (Untruncated, "truncation 0"),
        (Backwards, "coarse to fine"),
    ],
)
def test_a_broken_contract_is_named(kind: type[ToyBackbone], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_backbone(kind())


def test_a_cut_of_other_weights_is_named() -> None:
    with pytest.raises(ContractError, match="another fingerprint"):
        check_backbone(ToyBackbone(), cut=lambda split: ToyBackbone(split=split, seed=1))
