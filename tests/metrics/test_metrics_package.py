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
    assert sorted(name for names in sisug.metrics._FILES.values() for name in names) == sorted(sisug.metrics.__all__)
    for name in sisug.metrics.__all__:
        assert getattr(sisug.metrics, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'FID'"):
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
images, others = (torch.rand(7, 3, 4, 4, generator=generator) * 2 - 1 for _ in range(2))
masks, targets = (torch.randint(3, (7, 4, 4), generator=generator) for _ in range(2))

class Pool(torch.nn.Module):
    num_features = 3
    def forward(self, x):
        return x.mean(dim=(2, 3))

def scores(part):
    frechet, look, psnr = FrechetDistance(Pool(), "pool"), LookDifference(3, min_pixels=1), ReconstructionPSNR()
    segmentation, clusters = SegmentationScore(3), ClusterAgreement(3, 3)
    if len(images[part]):
        frechet.update(images[part], real=True)
        look.update(images[part], others[part], masks[part], targets[part])
        psnr.update(images[part], others[part])
        segmentation.update(masks[part], targets[part])
        clusters.update(masks[part], targets[part])
        frechet.update(others[part], real=False)
    return [float(x) for x in (frechet.compute(), look.compute(), psnr.compute(), segmentation.compute().miou,
                               clusters.compute().nmi)]

whole = scores(slice(None))
dist.init_process_group("gloo")
uneven = scores(slice(0, 5) if rank == 0 else slice(5, 7))
one_idle = scores(slice(None) if rank == 0 else slice(0, 0))
for got in (uneven, one_idle):
    torch.testing.assert_close(torch.tensor(got), torch.tensor(whole), rtol=1e-5, atol=1e-6)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_score_like_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RANK],
            env=shared | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
