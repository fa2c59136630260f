"""Two machines on one: torchrun's static meeting point on loopback, two nodes of one process each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_train_one_run_and_go_on(tmp_path: Path) -> None:
    layer = tmp_path / "toy.yaml"
    layer.write_text(
        yaml.safe_dump(
            {
                "model": {"class_path": "toy_training.ToyModule"},
                "data": {"class_path": "toy_training.ToyData"},
                "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
            }
        )
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    for epochs in (1, 3):
        port = free_port()
        nodes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(node)),
                    *("--nproc_per_node", "1", "--rdzv_backend", "static", "--rdzv_id", "sisug"),
                    *("--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "sisug", "fit"),
                    *("--config", str(REPOSITORY / "experiments" / "base.yaml"), "--config", str(layer)),
                    *("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"),
                    *("--run.name", "toy", "--run.version", "shared-1", "--ckpt_path", "last"),
                    *("--trainer.max_epochs", str(epochs)),
                ],
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in range(2)
        ]
        said = [node.communicate(timeout=280)[0] for node in nodes]
        assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
        (run,) = (tmp_path / "runs" / "toy").iterdir()
        assert run.name == "shared-1"
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["epoch"] == epochs - 1
        assert checkpoint["state_dict"]["images_seen"] == 16 * epochs


def test_the_slurm_script_is_one() -> None:
    script = REPOSITORY / "experiments" / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    for path in (part for part in text.split() if part.startswith("experiments/") and part.endswith(".yaml")):
        assert (REPOSITORY / path).is_file(), path
