"""skelops: fused ops and models for learning from human skeletons."""

from skelops import _backend, graph
from skelops._backend import use_backend
from skelops.ops import (
    bn_act_add,
    ctr_graph_conv,
    graph_conv,
    hyper_adjacency,
    hypergraph_conv,
    hypergraph_operator,
    hypergraph_propagate,
    masked_cosine_loss,
    masked_motion_loss,
    masked_patch_embed,
    mixup_cross_entropy,
    motion_mask,
    motion_target,
    ms_temporal_conv,
    part_mask,
    random_uniform,
    sample_clips,
    skeleton_streams,
    slot_mask,
    st_attention,
    temporal_mean,
    token_restore,
)

__version__ = "0.1.0"
__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "graph",
    "graph_conv",
    "hyper_adjacency",
    "hypergraph_conv",
    "hypergraph_operator",
    "hypergraph_propagate",
    "masked_cosine_loss",
    "masked_motion_loss",
    "masked_patch_embed",
    "mixup_cross_entropy",
    "motion_mask",
    "motion_target",
    "ms_temporal_conv",
    "part_mask",
    "random_uniform",
    "sample_clips",
    "skeleton_streams",
    "slot_mask",
    "st_attention",
    "temporal_mean",
    "token_restore",
    "use_backend",
]

_backend.activate()
