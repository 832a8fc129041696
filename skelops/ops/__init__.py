"""Ops: drop-in functions, each with CPU, GPU and reference backends."""

from skelops.ops.affinity_contrastive_loss import affinity_contrastive_loss
from skelops.ops.anchor_regression import anchor_regression
from skelops.ops.ball_query import ball_query
from skelops.ops.bn_act_add import bn_act_add
from skelops.ops.cmd_loss import cmd_loss
from skelops.ops.ctr_graph_conv import ctr_graph_conv
from skelops.ops.ctr_graph_unit import ctr_graph_unit
from skelops.ops.deform_sample_3d import deform_attention_3d, deform_sample_3d
from skelops.ops.directional_clustering_loss import directional_clustering_loss
from skelops.ops.farthest_point_sample import farthest_point_sample
from skelops.ops.forward_dynamics import forward_dynamics
from skelops.ops.forward_kinematics import forward_kinematics
from skelops.ops.graph_conv import graph_conv
from skelops.ops.graph_unit import graph_unit
from skelops.ops.gru import gru
from skelops.ops.hallucinate_positives import Hallucinated, hallucinate_positives
from skelops.ops.hyper_adjacency import hyper_adjacency
from skelops.ops.hypergraph_conv import hypergraph_conv
from skelops.ops.hypergraph_propagate import hypergraph_operator, hypergraph_propagate
from skelops.ops.hypergraph_unit import hypergraph_unit
from skelops.ops.info_nce import info_nce
from skelops.ops.inverse_dynamics import inverse_dynamics
from skelops.ops.knn import knn
from skelops.ops.knn_classify import knn_classify
from skelops.ops.knn_vote import knn_vote
from skelops.ops.lagrange_tau import lagrange_tau
from skelops.ops.linear import linear
from skelops.ops.masked_cosine_loss import masked_cosine_loss
from skelops.ops.masked_motion_loss import masked_motion_loss
from skelops.ops.masked_patch_embed import masked_patch_embed
from skelops.ops.mass_matrix import mass_matrix
from skelops.ops.mcu_scan import mcu_scan
from skelops.ops.mixup_cross_entropy import mixup_cross_entropy
from skelops.ops.mlp import mlp
from skelops.ops.momentum_update import momentum_update_
from skelops.ops.motion_mask import motion_mask
from skelops.ops.motion_target import motion_target
from skelops.ops.ms_temporal_conv import ms_temporal_conv
from skelops.ops.ms_temporal_unit import ms_temporal_unit
from skelops.ops.narrow_ffn import narrow_ffn
from skelops.ops.nn_contrastive_loss import nn_contrastive_loss
from skelops.ops.nn_lookup import nn_lookup
from skelops.ops.part_mask import part_mask
from skelops.ops.point_dynamics import point_dynamics
from skelops.ops.pose_heatmap import pose_heatmap
from skelops.ops.queue_push import queue_push_, queue_recent
from skelops.ops.random_uniform import random_uniform
from skelops.ops.sample_clips import sample_clips
from skelops.ops.shift_conv import shift_conv
from skelops.ops.skeleton_streams import skeleton_streams
from skelops.ops.slot_mask import slot_mask
from skelops.ops.sphere_kmeans import sphere_kmeans, sphere_kmeans_start
from skelops.ops.st_attention import st_attention
from skelops.ops.sym_packed_matvec import sym_packed_matvec
from skelops.ops.temporal_conv import temporal_conv
from skelops.ops.temporal_mean import temporal_mean
from skelops.ops.temporal_shift import temporal_shift
from skelops.ops.temporal_unit import temporal_unit
from skelops.ops.token_restore import token_restore
from skelops.ops.tree_solve import tree_solve
from skelops.ops.x3d_block import x3d_block

__all__ = [
    "Hallucinated",
    "affinity_contrastive_loss",
    "anchor_regression",
    "ball_query",
    "bn_act_add",
    "cmd_loss",
    "ctr_graph_conv",
    "ctr_graph_unit",
    "deform_attention_3d",
    "deform_sample_3d",
    "directional_clustering_loss",
    "farthest_point_sample",
    "forward_dynamics",
    "forward_kinematics",
    "graph_conv",
    "graph_unit",
    "gru",
    "hallucinate_positives",
    "hyper_adjacency",
    "hypergraph_conv",
    "hypergraph_operator",
    "hypergraph_propagate",
    "hypergraph_unit",
    "info_nce",
    "inverse_dynamics",
    "knn",
    "knn_classify",
    "knn_vote",
    "lagrange_tau",
    "linear",
    "masked_cosine_loss",
    "masked_motion_loss",
    "masked_patch_embed",
    "mass_matrix",
    "mcu_scan",
    "mixup_cross_entropy",
    "mlp",
    "momentum_update_",
    "motion_mask",
    "motion_target",
    "ms_temporal_conv",
    "ms_temporal_unit",
    "narrow_ffn",
    "nn_contrastive_loss",
    "nn_lookup",
    "part_mask",
    "point_dynamics",
    "pose_heatmap",
    "queue_push_",
    "queue_recent",
    "random_uniform",
    "sample_clips",
    "shift_conv",
    "skeleton_streams",
    "slot_mask",
    "sphere_kmeans",
    "sphere_kmeans_start",
    "st_attention",
    "sym_packed_matvec",
    "temporal_conv",
    "temporal_mean",
    "temporal_shift",
    "temporal_unit",
    "token_restore",
    "tree_solve",
    "x3d_block",
]
