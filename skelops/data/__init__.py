"""Skeleton clips: container and store, formats, synthetic set, splits, augmentation, loading."""

from skelops.data import synthetic
from skelops.data.clips import Clips
from skelops.data.convert import Conversion, convert
from skelops.data.dataset import BalancedSampler, Batch, ClipDataset, ClipLoader, DrawSampler
from skelops.data.formats import open_source, read
from skelops.data.longtail import (
    action_aware_weights,
    class_balanced_weights,
    class_counts,
    class_groups,
    long_tail,
    long_tail_counts,
    tail_multipliers,
)
from skelops.data.mixup import PartialMixUp
from skelops.data.plan import ClipPlan
from skelops.data.recorded import RecordedDataset
from skelops.data.render import RenderedDataset, render
from skelops.data.splits import load_split, save_split, split
from skelops.data.store import ClipWriter, verify
from skelops.data.streams import STREAMS, Streams, make_streams
from skelops.data.transform import TRANSFORMS, ClipTransform, get_transform

__all__ = [
    "STREAMS",
    "TRANSFORMS",
    "BalancedSampler",
    "Batch",
    "ClipDataset",
    "ClipLoader",
    "ClipPlan",
    "ClipTransform",
    "ClipWriter",
    "Clips",
    "Conversion",
    "DrawSampler",
    "PartialMixUp",
    "RecordedDataset",
    "RenderedDataset",
    "Streams",
    "action_aware_weights",
    "class_balanced_weights",
    "class_counts",
    "class_groups",
    "convert",
    "get_transform",
    "load_split",
    "long_tail",
    "long_tail_counts",
    "make_streams",
    "open_source",
    "read",
    "render",
    "save_split",
    "split",
    "synthetic",
    "tail_multipliers",
    "verify",
]
