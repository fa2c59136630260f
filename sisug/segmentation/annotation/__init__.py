"""Annotation (stage 2): generator samples picked for labelling, painted by a user or labelled by the judge."""

from sisug.segmentation.annotation.folder import read_annotations, write_annotations
from sisug.segmentation.annotation.picking import first_samples, fit_codebook, pick_samples
from sisug.segmentation.annotation.samples import LabelledSamples, judged_samples

__all__ = [
    "LabelledSamples",
    "first_samples",
    "fit_codebook",
    "judged_samples",
    "pick_samples",
    "read_annotations",
    "write_annotations",
]
