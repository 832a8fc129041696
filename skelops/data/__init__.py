"""Skeleton clips: container, synthetic default set, readers, batched augmentation and loading."""

from skelops.data import synthetic, transforms
from skelops.data.clips import Clips, split
from skelops.data.dataset import ClipDataset, DrawSampler, loader
from skelops.data.readers import read, read_npz, read_nw_ucla

__all__ = [
    "ClipDataset",
    "Clips",
    "DrawSampler",
    "loader",
    "read",
    "read_npz",
    "read_nw_ucla",
    "split",
    "synthetic",
    "transforms",
]
