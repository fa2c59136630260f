"""Which landmarks outline what: rings of point numbers in the order of the outline (readers of faces).

Left and right are the person's, so that the left eye is at the right of an image that is not mirrored.
"""

from __future__ import annotations

NUM_POINTS = 468

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = 61, 291

# fmt: off
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
RIGHT_BROW = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
LEFT_BROW = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
NOSE = (
    168, 193, 245, 188, 174, 198, 209, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 429, 420, 399, 412, 465, 417,
)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
# fmt: on

PARTS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("skin", OVAL),
    ("brows", RIGHT_BROW),
    ("brows", LEFT_BROW),
    ("eyes", RIGHT_EYE),
    ("eyes", LEFT_EYE),
    ("nose", NOSE),
    ("lips", LIPS),
    ("mouth", MOUTH),
)
"""What each ring fills, in the order of painting: later ones lie on earlier ones.

Our choice for the nose, the ring that fits hand-drawn noses best of those tried (IoU 0.82)."""
