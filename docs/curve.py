"""Draws docs/images/generator-curve.png from metrics.csv of a generator's run: `python docs/curve.py METRICS_CSV`.

The validation rows are kept in docs/generator-avatars.csv, so that the picture can be drawn again without the run.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
TABLE = DOCS / "generator-avatars.csv"
DISTANCE, VARIETY = "val/frechet_avatars-judge-unet-v1", "val/variety_avatars-judge-unet-v1"
EPOCH_KIMG = 10


def read(metrics: Path) -> list[tuple[float, float, float]]:
    """Thousands of images, distance and variety of each validation; a run that went on repeats rows, the last hold."""
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(DISTANCE)]
    found = {(int(row["epoch"]) + 1) * EPOCH_KIMG: (float(row[DISTANCE]), float(row[VARIETY])) for row in rows}
    return [(float(kimg), *values) for kimg, values in sorted(found.items())]


def main() -> None:
    """Update the table where a run is given, and draw."""
    if len(sys.argv) > 1:
        with TABLE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("kimg", "frechet2k_judge", "variety"))
            writer.writerows((f"{k:g}", f"{d:.4f}", f"{v:.4f}") for k, d, v in read(Path(sys.argv[1])))
    with TABLE.open(newline="") as file:
        rows = [(float(r["kimg"]), float(r["frechet2k_judge"]), float(r["variety"])) for r in csv.DictReader(file)]
    kimg, distance, variety = zip(*rows, strict=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(kimg, distance, marker=".")
    left.set_yscale("log")
    left.yaxis.set_major_formatter(plt.ScalarFormatter())
    left.yaxis.set_minor_formatter(plt.ScalarFormatter())
    left.set(xlabel="thousand images", title="Fréchet distance (judge's features, 2,000 samples)")
    right.plot(kimg, variety, marker=".")
    right.axhline(1, linewidth=0.8, linestyle=":")
    right.set(xlabel="thousand images", title="variety of samples (drawn avatars: 1)", ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3, which="both")
    figure.savefig(DOCS / "images" / "generator-curve.png", dpi=110)


if __name__ == "__main__":
    main()
