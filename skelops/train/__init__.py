"""Training with Lightning, with labels and without: modules, a data module, the command line."""

try:
    import lightning as _lightning  # noqa: F401
except ImportError as error:
    raise ImportError("skelops.train needs Lightning: pip install 'skelops[train]'") from error

from skelops.train.allocator import tune_allocator
from skelops.train.data import SkeletonDataModule
from skelops.train.pretrain import Pretrainer, load_encoder
from skelops.train.recognizer import Recognizer
from skelops.train.transfer import FineTuner, Probe, load_recognizer

__all__ = [
    "FineTuner",
    "Pretrainer",
    "Probe",
    "Recognizer",
    "SkeletonDataModule",
    "load_encoder",
    "load_recognizer",
    "tune_allocator",
]
