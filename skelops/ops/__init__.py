"""Ops: drop-in functions, each with CPU, GPU and reference backends."""

from skelops.ops.bn_act_add import bn_act_add
from skelops.ops.ctr_graph_conv import ctr_graph_conv
from skelops.ops.forward_dynamics import forward_dynamics
from skelops.ops.forward_kinematics import forward_kinematics
from skelops.ops.graph_conv import graph_conv
from skelops.ops.hyper_adjacency import hyper_adjacency
from skelops.ops.hypergraph_conv import hypergraph_conv
from skelops.ops.hypergraph_propagate import hypergraph_operator, hypergraph_propagate
from skelops.ops.inverse_dynamics import inverse_dynamics
from skelops.ops.lagrange_tau import lagrange_tau
from skelops.ops.masked_cosine_loss import masked_cosine_loss
from skelops.ops.masked_motion_loss import masked_motion_loss
from skelops.ops.masked_patch_embed import masked_patch_embed
from skelops.ops.mass_matrix import mass_matrix
from skelops.ops.mixup_cross_entropy import mixup_cross_entropy
from skelops.ops.motion_mask import motion_mask
from skelops.ops.motion_target import motion_target
from skelops.ops.ms_temporal_conv import ms_temporal_conv
from skelops.ops.part_mask import part_mask
from skelops.ops.point_dynamics import point_dynamics
from skelops.ops.pose_heatmap import pose_heatmap
from skelops.ops.random_uniform import random_uniform
from skelops.ops.sample_clips import sample_clips
from skelops.ops.skeleton_streams import skeleton_streams
from skelops.ops.slot_mask import slot_mask
from skelops.ops.st_attention import st_attention
from skelops.ops.sym_packed_matvec import sym_packed_matvec
from skelops.ops.temporal_mean import temporal_mean
from skelops.ops.temporal_shift import temporal_shift
from skelops.ops.token_restore import token_restore

__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "forward_dynamics",
    "forward_kinematics",
    "graph_conv",
    "hyper_adjacency",
    "hypergraph_conv",
    "hypergraph_operator",
    "hypergraph_propagate",
    "inverse_dynamics",
    "lagrange_tau",
    "masked_cosine_loss",
    "masked_motion_loss",
    "masked_patch_embed",
    "mass_matrix",
    "mixup_cross_entropy",
    "motion_mask",
    "motion_target",
    "ms_temporal_conv",
    "part_mask",
    "point_dynamics",
    "pose_heatmap",
    "random_uniform",
    "sample_clips",
    "skeleton_streams",
    "slot_mask",
    "st_attention",
    "sym_packed_matvec",
    "temporal_mean",
    "temporal_shift",
    "token_restore",
]
