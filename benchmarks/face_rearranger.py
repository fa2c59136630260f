"""Stage 1 on faces, scored by readers that it never saw: landmarks, and the VGG trunk of HED.

    python benchmarks/face_rearranger.py --rearranger faces --pairs 256 --out face-rearranger.json

Held-out pairs of samples: each takes the other's proxy mask. Prints the normalized mean error of the result's landmarks
to those of the target's own image, beside that of the untouched source; the proxy mIoU; self-reconstruction at 256 px;
and the Fréchet distance of results to generated samples, beside that of other generated samples (all by as many images
as pairs: such a distance falls with their number).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from sisug.common.provenance import git_commit
from sisug.common.seeding import fixed_latents
from sisug.faces import FaceLandmarks
from sisug.metrics import ReconstructionPSNR, SegmentationScore
from sisug.metrics.frechet import FrechetDistance
from sisug.metrics.landmarks import LandmarkError
from sisug.metrics.vgg import VGGFeatures
from sisug.rearranger import load_rearranger
from sisug.types import Images


def small(images: Images) -> Images:
    """Images at 256 px."""
    return F.interpolate(images, (256, 256), mode="bilinear", antialias=True)


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    """Score a rearranger and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rearranger", default="faces", help="a checkpoint, a file, or the name of one that ships")
    parser.add_argument("--pairs", type=int, default=256, help="number of held-out pairs")
    parser.add_argument("--batch", type=int, default=4, help="samples at a time")
    parser.add_argument("--frechet", action="store_true", help="the Fréchet distance too (a package of 55 MB)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(arguments)
    trained = load_rearranger(given.rearranger)
    pipeline, generator = trained.pipeline, trained.generator
    reader = FaceLandmarks()
    errors = {name: LandmarkError() for name in ("result", "source", "self")}
    clusters, psnr = SegmentationScore(trained.codebook.clusters), ReconstructionPSNR()
    distances = {}
    if given.frechet:
        features = VGGFeatures()
        distances = {name: FrechetDistance(features) for name in ("result", "generated")}
    for start in range(0, given.pairs, given.batch):
        index = torch.arange(start, min(start + given.batch, given.pairs))
        source, target, other = (
            pipeline.source(
                generator.map(fixed_latents(index, generator.z_dim, seed=0, purpose=f"test {name}"), trained.truncation)
            )
            for name in ("source", "target", "other")
        )
        result, own = (pipeline.rearrange(source, each.mask) for each in (target, source))
        clusters.update(trained.codebook.assign(result.map), target.mask)
        images = {
            "result": small(pipeline.render(result, source.ws)),
            "source": small(pipeline.render(source.features, source.ws)),
            "self": small(pipeline.render(own, source.ws)),
        }
        target_image = small(pipeline.render(target.features, target.ws))
        psnr.update(images["self"], images["source"])
        goal = reader(target_image).points
        points = {name: reader(image).points for name, image in images.items()}
        for name in ("result", "source"):
            errors[name].update(points[name], goal)
        errors["self"].update(points["self"], points["source"])
        if distances:
            generated = small(pipeline.render(other.features, other.ws))
            for name, each in (("result", images["result"]), ("generated", generated)):
                distances[name].update(target_image, real=True)
                distances[name].update(each, real=False)
    score = clusters.compute()
    found: dict[str, object] = {
        "nme_result": float(errors["result"].compute()),
        "nme_source": float(errors["source"].compute()),
        "nme_self": float(errors["self"].compute()),
        "no_face": {name: int(each.missing) for name, each in errors.items()},
        "proxy_miou": float(score.miou),
        "proxy_accuracy": float(score.accuracy),
        "self_psnr_256": float(psnr.compute()),
        **{f"frechet_{name}": float(each.compute()) for name, each in distances.items()},
        "pairs": given.pairs,
        "rearranger": trained.source,
        "commit": git_commit(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
