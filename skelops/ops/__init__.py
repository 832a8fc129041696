"""Ops: drop-in functions, each with CPU, GPU and reference backends."""

from skelops.ops.bn_act_add import bn_act_add
from skelops.ops.ctr_graph_conv import ctr_graph_conv
from skelops.ops.graph_conv import graph_conv
from skelops.ops.masked_cosine_loss import masked_cosine_loss
from skelops.ops.masked_motion_loss import masked_motion_loss
from skelops.ops.masked_patch_embed import masked_patch_embed
from skelops.ops.motion_mask import motion_mask
from skelops.ops.motion_target import motion_target
from skelops.ops.ms_temporal_conv import ms_temporal_conv
from skelops.ops.part_mask import part_mask
from skelops.ops.random_uniform import random_uniform
from skelops.ops.sample_clips import sample_clips
from skelops.ops.slot_mask import slot_mask
from skelops.ops.temporal_mean import temporal_mean
from skelops.ops.token_restore import token_restore

__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "graph_conv",
    "masked_cosine_loss",
    "masked_motion_loss",
    "masked_patch_embed",
    "motion_mask",
    "motion_target",
    "ms_temporal_conv",
    "part_mask",
    "random_uniform",
    "sample_clips",
    "slot_mask",
    "temporal_mean",
    "token_restore",
]
