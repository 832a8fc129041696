"""Ops: drop-in functions, each with CPU, GPU and reference backends."""

from skelops.ops.bn_act_add import bn_act_add
from skelops.ops.ctr_graph_conv import ctr_graph_conv
from skelops.ops.forward_dynamics import forward_dynamics
from skelops.ops.forward_kinematics import forward_kinematics
from skelops.ops.graph_conv import graph_conv
from skelops.ops.inverse_dynamics import inverse_dynamics
from skelops.ops.lagrange_tau import lagrange_tau
from skelops.ops.mass_matrix import mass_matrix
from skelops.ops.ms_temporal_conv import ms_temporal_conv
from skelops.ops.point_dynamics import point_dynamics
from skelops.ops.random_uniform import random_uniform
from skelops.ops.sample_clips import sample_clips
from skelops.ops.sym_packed_matvec import sym_packed_matvec
from skelops.ops.temporal_mean import temporal_mean

__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "forward_dynamics",
    "forward_kinematics",
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
]
