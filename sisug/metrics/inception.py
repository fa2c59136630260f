"""Inception features of the official FID and KID: torch-fidelity's network and weights (evaluation)."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from sisug.common.image_bytes import to_bytes
from sisug.common.torch_files.data import load_data
from sisug.errors import CheckpointError, RunError, check_local
from sisug.metrics._once import say_once
from sisug.types import Images

logger = logging.getLogger(__name__)

REMEDY = f"pass the file that {URL_INCEPTION_V3} gives"

FILE = URL_INCEPTION_V3.rsplit("/", 1)[-1]

OFFICIAL = FILE.removesuffix(".pth").rsplit("-", 1)[-1]
"""Where the SHA-256 of the weights of published FIDs begins with this; torch-fidelity names its file after it."""


class InceptionFeatures(nn.Module):
    """Torch-fidelity's Inception v3, bit for bit: under it, Fréchet and kernel distance are the FID and the KID.

    Images are rounded to bytes, as saving them would, and resized to 299 px as TensorFlow 1 does (bilinear, without
    antialiasing), inside the network. The name carries the beginning of the weight file's SHA-256:
    "inception-6726825d" for the weights of published numbers.

    Args:
        inception: file of the weights in torch-fidelity's format; None for torch-fidelity's own file, downloaded
            once to torch's hub folder (95 MB), where it may also be put by hand.
        feature: width of the layer: 2048 is that of published numbers; 64, 192 and 768 are earlier layers, for few
            images (a covariance needs more images than features), and come with their own name.

    Attributes:
        name: of the extractor, part of the names of values.
        num_features: as `feature`.
        fingerprint: SHA-256 of the weight file.
        official: whether the weights are those of published numbers.
        resize: how images are resized, for the protocol record.

    Raises:
        RunError: the weights cannot be downloaded.
        CheckpointError: the file is missing, damaged or holds something else.

    Source: M. Heusel et al. 2017; A. Obukhov et al., torch-fidelity (2020). Through torch-fidelity's own class rather
    than torchmetrics', whose default resizes with antialiasing and so gives other numbers than those published.
    """

    resize = "bilinear to 299 px without antialiasing, as TensorFlow 1"

    def __init__(self, inception: str | Path | None = None, feature: Literal[64, 192, 768, 2048] = 2048) -> None:
        super().__init__()
        check_local(inception or "", "the Inception weights")
        file = _downloaded() if inception is None else Path(inception).expanduser()
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _unusable(file, str(error)) from error
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self.official = self.fingerprint.startswith(OFFICIAL)
        self.name = f"inception-{self.fingerprint[:8]}" + ("" if feature == 2048 else f"-{feature}")
        self.num_features: int = feature
        self.network = _read(file, feature)
        if not self.official:
            say_once(
                logger,
                f"{file} does not hold the Inception weights of published numbers (SHA-256 {OFFICIAL}...), but "
                f"{self.fingerprint[:8]}...: compare values under {self.name} only among themselves.",
            )

    def forward(self, images: Images) -> Float[Tensor, "batch feature"]:
        """Rows of features.

        Args:
            images: in [-1, 1], of any size.
        """
        features: Tensor = self.network(to_bytes(images))[0]
        return features


def _read(file: Path, feature: int) -> nn.Module:
    """The network with the weights of a file."""
    try:
        weights = load_data(file, "the Inception weights", REMEDY)
        # torch-fidelity unpickles whatever it is given, code included: it gets a copy of the tensors, never the file.
        copy = io.BytesIO()
        torch.save(weights, copy)
        copy.seek(0)
        with torch.random.fork_rng(devices=[]):  # the network is initialised at random first
            return FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(feature)], feature_extractor_weights_path=copy
            )
    except CheckpointError:
        raise
    except Exception as error:  # whatever unpickling a damaged file may raise
        raise _unusable(file, " ".join(str(error).split())[:300]) from error


def _downloaded() -> Path:
    """Torch-fidelity's weights in torch's hub folder, where torch-fidelity itself looks for them."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):  # ranks wait for the first
            if not file.is_file():
                logger.info("downloading %s to %s", URL_INCEPTION_V3, file)
                torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), hash_prefix=OFFICIAL, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: another checksum
        raise RunError(
            f"the Inception weights of the FID cannot be downloaded to {file}",
            str(error) or type(error).__name__,
            f"download {URL_INCEPTION_V3} on a machine with access and put it there, or name the file: inception=FILE",
        ) from error
    return file


def _unusable(file: Path, cause: str) -> CheckpointError:
    return CheckpointError(f"the Inception weights {file} cannot be used", cause, REMEDY)
