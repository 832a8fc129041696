"""Skeleton clips: container and store, formats, synthetic set, splits, augmentation, loading."""

from skelops.data import synthetic
from skelops.data.clips import Clips
from skelops.data.convert import Conversion, convert
from skelops.data.dataset import Batch, ClipDataset, ClipLoader, DrawSampler
from skelops.data.formats import open_source, read
from skelops.data.plan import ClipPlan
from skelops.data.splits import load_split, save_split, split
from skelops.data.store import ClipWriter, verify
from skelops.data.streams import STREAMS, Streams, make_streams
from skelops.data.transform import TRANSFORMS, ClipTransform, get_transform

__all__ = [
    "STREAMS",
    "TRANSFORMS",
    "Batch",
    "ClipDataset",
    "ClipLoader",
    "ClipPlan",
    "ClipTransform",
    "ClipWriter",
    "Clips",
    "Conversion",
    "DrawSampler",
    "Streams",
    "convert",
    "get_transform",
    "load_split",
    "make_streams",
    "open_source",
    "read",
    "save_split",
    "split",
    "synthetic",
    "verify",
]
