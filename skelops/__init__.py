"""skelops: fused ops and models for learning from human skeletons."""

from skelops import _backend, graph
from skelops._backend import use_backend
from skelops.ops import (
    bn_act_add,
    ctr_graph_conv,
    forward_dynamics,
    forward_kinematics,
    graph_conv,
    inverse_dynamics,
    lagrange_tau,
    mass_matrix,
    ms_temporal_conv,
    point_dynamics,
    random_uniform,
    sample_clips,
    sym_packed_matvec,
    temporal_mean,
)

__version__ = "0.1.0"
__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "forward_dynamics",
    "forward_kinematics",
    "graph",
    "graph_conv",
    "inverse_dynamics",
    "lagrange_tau",
    "mass_matrix",
    "ms_temporal_conv",
    "point_dynamics",
    "random_uniform",
    "sample_clips",
    "sym_packed_matvec",
    "temporal_mean",
    "use_backend",
]

_backend.activate()
