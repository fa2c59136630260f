"""The few-shot protocol (evaluation): sisug and LinearGAN with the same few labels, targets and judge."""

from sisug.evaluation.few_shot.protocol import FewShot

__all__ = ["FewShot"]
