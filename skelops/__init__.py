"""skelops: fused ops and models for learning from human skeletons."""

from skelops import _backend, graph, ops
from skelops._backend import use_backend
from skelops.ops import *  # noqa: F403
from skelops.patching import PatchReport, patch, unpatch

__version__ = "0.1.0"
__all__ = ["PatchReport", "graph", "patch", "unpatch", "use_backend"]
__all__ += ops.__all__

_backend.activate()
