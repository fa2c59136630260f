"""Tests of the metrics package as a whole: light to import, free of Lightning, equal on several ranks."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sisug.metrics


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "torchmetrics", "kornia", "torchvision", "lightning")
    code = f"import sys, sisug.metrics as m; dir(m); sys.exit(sum(x in sys.modules for x in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists_and_no_other() -> None:
    assert len(set(sisug.metrics.__all__)) == len(sisug.metrics.__all__) > 30
    for name in sisug.metrics.__all__:
        assert getattr(sisug.metrics, name).__name__ == name
    with pytest.raises(AttributeError, match=r"No sisug\.metrics attribute FID"):
        sisug.metrics.FID  # noqa: B018


def test_no_score_needs_lightning() -> None:
    for file in Path(sisug.metrics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
            assert not any(str(name).split(".")[0] in ("lightning", "pytorch_lightning") for name in names), file


RANK = """
import os, sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from sisug.metrics import *
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
generator = torch.Generator().manual_seed(0)
images, others = (torch.rand(13, 3, 4, 4, generator=generator) * 2 - 1 for _ in range(2))
masks, targets = (torch.randint(3, (13, 4, 4), generator=generator) for _ in range(2))

class Pool(torch.nn.Module):
    name, num_features = "pool", 3
    def forward(self, x):
        return x.mean(dim=(2, 3))

def scores(part, real=None):
    realism, look, psnr = RealismScores(Pool()), LookDifference(3, min_pixels=1), ReconstructionPSNR()
    segmentation, clusters = SegmentationScore(3), ClusterAgreement(3, 3)
    per_image, diversity = PerImageSegmentationScore(3), FeatureDiversity(Pool())
    batches = [images[i : i + 1] for i in range(13)[part]]
    if real is None:
        for batch in batches:
            realism.update(batch, real=True)
    else:
        assert fill_real_side(realism, batches, data="abc", protocol={}, folder=real) == 13
    for i in range(13)[part]:
        one = slice(i, i + 1)
        look.update(images[one], others[one], masks[one], targets[one])
        psnr.update(images[one], others[one])
        segmentation.update(masks[one], targets[one])
        per_image.update(masks[one], targets[one])
        clusters.update(masks[one], targets[one])
        realism.update(others[one], real=False)
        diversity.update(images[[i, (i + 1) % 13, (i + 2) % 13]])
    layout, by_image = segmentation.compute(), per_image.compute()
    return [float(x) for x in (*realism.compute(), look.compute(), psnr.compute(), layout.miou, layout.accuracy,
                               *layout.iou, by_image.miou, by_image.accuracy, *by_image.iou,
                               clusters.compute().nmi, diversity.compute())]

whole = scores(slice(None))
dist.init_process_group("gloo")
halves = slice(0, 9) if rank == 0 else slice(9, 13)
one_idle = slice(None) if rank == 0 else slice(0, 0)
every_other = slice(rank, None, 2)
cache = sys.argv[1]
for got in (scores(halves), scores(one_idle), scores(every_other), scores(halves, cache), scores(one_idle, cache)):
    torch.testing.assert_close(torch.tensor(got), torch.tensor(whole), rtol=1e-6, atol=1e-6)
assert len(os.listdir(cache)) == 1
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_score_like_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK, str(tmp_path)],
            env=shared | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
