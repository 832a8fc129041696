"""Ops: drop-in functions, each with CPU, GPU and reference backends."""

from skelops.ops.bn_act_add import bn_act_add
from skelops.ops.ctr_graph_conv import ctr_graph_conv
from skelops.ops.graph_conv import graph_conv
from skelops.ops.ms_temporal_conv import ms_temporal_conv
from skelops.ops.random_uniform import random_uniform
from skelops.ops.sample_clips import sample_clips
from skelops.ops.st_attention import st_attention
from skelops.ops.temporal_mean import temporal_mean

__all__ = [
    "bn_act_add",
    "ctr_graph_conv",
    "graph_conv",
    "ms_temporal_conv",
    "random_uniform",
    "sample_clips",
    "st_attention",
    "temporal_mean",
]
