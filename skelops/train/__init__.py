"""Supervised training with Lightning: a recogniser, a data module, the command line."""

try:
    import lightning as _lightning  # noqa: F401
except ImportError as error:
    raise ImportError("skelops.train needs Lightning: pip install 'skelops[train]'") from error

from skelops.train.allocator import tune_allocator
from skelops.train.data import SkeletonDataModule
from skelops.train.recognizer import Recognizer

__all__ = ["Recognizer", "SkeletonDataModule", "tune_allocator"]
