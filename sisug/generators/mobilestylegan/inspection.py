"""What a file of MobileStyleGAN is, in words (generators)."""

from __future__ import annotations

from pathlib import Path

from sisug.generators.mobilestylegan.backbone import cuts, default_cut
from sisug.generators.mobilestylegan.network import MobileStyleGAN
from sisug.generators.native import read_sidecar


def described(path: Path, network: MobileStyleGAN, fingerprint: str) -> list[str]:
    """What a generator is, a line for each fact.

    Args:
        path: its file.
        network: its network.
        fingerprint: of its weights.
    """
    sidecar = read_sidecar(path)
    facts = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "family": "MobileStyleGAN",
        "source": str(sidecar.get("source", "not known")),
        "images": f"{network.resolution} x {network.resolution} px",
        "channels": ", ".join(f"{channels} at {size} px" for size, channels in sorted(network.channels.items())),
        "mapping": f"{len(network.mapping.layers)} layers, z {network.z_dim}, w {network.w_dim}, "
        f"{network.num_ws} styles an image",
        "classes": "none (unconditional)",
        "discriminator": "none in this file",
        "splits": f"{', '.join(map(str, cuts(network)))} px; default {default_cut(network)}",
        "parameters": f"{sum(parameter.numel() for parameter in network.parameters()):,}",
        "fingerprint": fingerprint,
        "licence": str(sidecar.get("terms", "that of its source")),
    }
    return [f"{name + ':':<15}{fact}" for name, fact in facts.items()]
