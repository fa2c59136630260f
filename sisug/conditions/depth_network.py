"""Depth networks of the Hugging Face hub, or of local folders (condition depth of stage 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sisug.common.fingerprint import fingerprint
from sisug.common.image_bytes import to_bytes
from sisug.conditions.hub_models import check_installed, load_model, unusable
from sisug.errors import CheckpointError, ConfigError
from sisug.types import Images

LargerIs = Literal["near", "far"]
"""What a large value of a depth network means: a near point (relative, inverse depth) or a far one (metres)."""

KIND = "the depth network"

UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.",)
"""Weights of DPT and Depth Anything that nothing flows through, and that published files leave out."""

NEAREST = 0.1
"""Smallest distance that a network is believed, metres. Our choice."""

TRIAL = 64
"""Height and width of the image that a network is tried on, pixels."""


class DepthNetwork(nn.Module):
    """A model of transformers that estimates depth: Depth Anything, DPT (MiDaS), ZoeDepth, GLPN, Depth Pro.

    Examples: `depth-anything/Depth-Anything-V2-Small-hf`, `Intel/dpt-hybrid-midas`. Images are prepared as the
    model's own record says, from the bytes that saving them would write.

    Args:
        model: name on the hub, or a local folder as `save_pretrained` or `hf download` writes it.
        revision: commit, branch or tag on the hub; None for the newest.
        resolution: height and width to which images are resized for the model, pixels; None for its own. Smaller is
            faster and coarser.
        larger_is: what its large values mean; None to tell from the model's kind.

    Attributes:
        fingerprint: SHA-256 of its weights.

    Raises:
        CheckpointError: it cannot be downloaded or read, estimates no depth, or lacks weights.
        ConfigError: transformers is not installed, or nothing says what its large values mean.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        resolution: int | None = None,
        larger_is: LargerIs | None = None,
    ) -> None:
        super().__init__()
        check_installed(f"{KIND} {model!r}")
        from transformers import AutoImageProcessor

        folder = Path(model).expanduser()
        source = str(folder) if folder.is_dir() else model
        self.model: Any = load_model("AutoModelForDepthEstimation", source, revision, KIND, UNUSED)
        self.larger_is = larger_is or _larger_is(source, self.model.config)
        try:
            processors: Any = AutoImageProcessor
            self.processor = processors.from_pretrained(source, revision=revision)
        except Exception as error:
            raise unusable(source, KIND, error) from error
        self.size = {} if resolution is None else {"size": {"height": resolution, "width": resolution}}
        self.fingerprint = fingerprint(self.model.state_dict())
        self.requires_grad_(False).eval()
        self._try(source)

    def forward(self, images: Images) -> Float[Tensor, "batch 1 height width"]:
        """How near each point is, in a scale of each image's own: larger is nearer.

        Args:
            images: RGB in [-1, 1].
        """
        height, width = images.shape[-2:]
        inputs = self.processor(images=to_bytes(images), return_tensors="pt", **self.size)
        outputs = self.model(**inputs.to(images.device))
        # By position, since ZoeDepth's second argument has another name.
        found = self.processor.post_process_depth_estimation(outputs, [(height, width)] * len(images))
        depth = torch.stack([each["predicted_depth"] for each in found])[:, None].float()
        return depth if self.larger_is == "near" else 1 / depth.clamp_min(NEAREST)

    @torch.no_grad()
    def _try(self, source: str) -> None:
        """What a model asks for beside images, and which sizes it takes, shows in its code only."""
        try:
            self(torch.zeros(1, 3, TRIAL, TRIAL))
        except Exception as error:  # whatever a model's own code raises
            raise CheckpointError(
                f"{KIND} {source} gives no depth for a picture of {TRIAL}x{TRIAL} pixels",
                " ".join(str(error).split())[:300] or type(error).__name__,
                "choose a model that takes nothing but pictures, and leave resolution out or choose another",
            ) from error


def _larger_is(source: str, config: Any) -> LargerIs:
    """As the model's kind has it.

    Source: the models' papers: MiDaS and Depth Anything estimate inverse depth, the others metres; DPT heads on DINOv2
    are those of its paper, trained on metres.
    """
    if config.model_type == "depth_anything":
        return "far" if config.depth_estimation_type == "metric" else "near"
    if config.model_type == "dpt":
        return "far" if "dinov2" in str(getattr(config.backbone_config, "model_type", "")) else "near"
    if config.model_type in ("depth_pro", "glpn", "prompt_depth_anything", "zoedepth"):
        return "far"
    raise ConfigError(
        f"{KIND} {source} of the kind {config.model_type}",
        "nothing says whether its large values are near points or far ones",
        "say so with larger_is: near or far",
    )
