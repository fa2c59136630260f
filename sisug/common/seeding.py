"""Counter-based random streams (every stage): a draw depends on where it stands in the run, not on what ran before."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def seed_for(*, seed: int, rank: int, images_seen: int, purpose: str) -> int:
    """Mix a position in a run into one seed.

    The parts are hashed (BLAKE2b), not added up: neighbouring seeds, ranks and counts give unrelated streams, and no
    two positions share one by arithmetic accident.

    Args:
        seed: the run's seed.
        rank: the process's number, from 0.
        images_seen: images trained on so far, over all ranks.
        purpose: what the draw is for ("latents", "pairs"); streams of different purposes are independent.

    Returns:
        A seed in [0, 2^63).

    Source: our choice, after EDM2's reseeding by (seed, rank, images) before each step: a resumed run equals an
    unbroken one, without random states in checkpoints.
    """
    key = f"{int(seed)}|{int(rank)}|{int(images_seen)}|{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator_for(
    *, seed: int, rank: int, images_seen: int, purpose: str, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A private random stream for one position in a run; the global random state is neither read nor changed.

    Args:
        seed: the run's seed.
        rank: the process's number, from 0.
        images_seen: images trained on so far, over all ranks.
        purpose: what the draw is for; streams of different purposes are independent.
        device: where the numbers are drawn. The CPU gives the same numbers on every machine.

    Source: our choice, see `seed_for`.
    """
    stream = torch.Generator(device=device)
    stream.manual_seed(seed_for(seed=seed, rank=rank, images_seen=images_seen, purpose=purpose))
    return stream


def fixed_latents(
    indices: Int64[Tensor, " batch"], z_dim: int, *, seed: int, purpose: str
) -> Float[Tensor, "batch z_dim"]:
    """Latents that depend on their own index alone, whatever the batch size, the rank or the order.

    Args:
        indices: positions in a validation or test set.
        z_dim: size of a latent.
        seed: of the set.
        purpose: which set, and which part of a pair.
    """
    rows = [
        torch.randn(z_dim, generator=generator_for(seed=seed, rank=0, images_seen=i, purpose=purpose))
        for i in indices.tolist()
    ]
    return torch.stack(rows).to(indices.device)
