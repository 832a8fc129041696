"""skelops: fused ops and models for learning from human skeletons."""

from skelops import _backend, graph
from skelops._backend import use_backend
from skelops.ops import (
    bn_act_add,
    ctr_graph_conv,
    graph_conv,
    ms_temporal_conv,
    random_uniform,
    sample_clips,
    st_attention,
    temporal_mean,
)

__version__ = "0.1.0"
__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "graph",
    "graph_conv",
    "ms_temporal_conv",
    "random_uniform",
    "sample_clips",
    "st_attention",
    "temporal_mean",
    "use_backend",
]

_backend.activate()
