"""Modules that own parameters and call the ops."""

from skelops.nn.adaptive_graph_conv import AdaptiveGraphConv, Gates
from skelops.nn.adaptive_hypergraph_conv import (
    AdaptiveHypergraphConv,
    divergence_loss,
    static_adjacency,
)
from skelops.nn.backbone import SkeletonNet, make_stages
from skelops.nn.blocks import GraphUnit, Shortcut, STBlock, TemporalUnit
from skelops.nn.conv3d import ConvNorm3d
from skelops.nn.ctr_graph_conv import CTRGraphConv, DynamicGraphConv
from skelops.nn.deform_attention import CrossAttention, DeformAttention3d, TokenSearch3d
from skelops.nn.gin_conv import GINConv
from skelops.nn.graph_conv import GraphConv
from skelops.nn.hypergraph_conv import HypergraphConv
from skelops.nn.linear import Linear
from skelops.nn.norm import bn_act_add
from skelops.nn.packed import Packed, Part, kaiming_, published_parts
from skelops.nn.pose_heatmap import HeatmapNet, PoseHeatmap
from skelops.nn.post_norm import PackedAttention, PostNormBlock
from skelops.nn.st_attention import STAttention
from skelops.nn.temporal_conv import MultiScaleTemporalConv, TemporalConv
from skelops.nn.topology import Topology
from skelops.nn.transformer import DropPath, TransformerBlock
from skelops.nn.video_resnet import VideoResNet

__all__ = [
    "AdaptiveGraphConv",
    "AdaptiveHypergraphConv",
    "CTRGraphConv",
    "ConvNorm3d",
    "CrossAttention",
    "DeformAttention3d",
    "DropPath",
    "DynamicGraphConv",
    "GINConv",
    "Gates",
    "GraphConv",
    "GraphUnit",
    "HeatmapNet",
    "HypergraphConv",
    "Linear",
    "MultiScaleTemporalConv",
    "Packed",
    "PackedAttention",
    "Part",
    "PoseHeatmap",
    "PostNormBlock",
    "STAttention",
    "STBlock",
    "Shortcut",
    "SkeletonNet",
    "TemporalConv",
    "TemporalUnit",
    "TokenSearch3d",
    "Topology",
    "TransformerBlock",
    "VideoResNet",
    "bn_act_add",
    "divergence_loss",
    "kaiming_",
    "make_stages",
    "published_parts",
    "static_adjacency",
]
