"""Thin models of published methods, and their checkpoints."""

from skelops.models._pretext import (
    LinearProbe,
    Pretext,
    build_classifier,
    create_pretext,
    list_pretexts,
    register_pretext,
)
from skelops.models._published import LoadReport, load_published, published_keys, published_state
from skelops.models._registry import create_model, list_models, register_model
from skelops.models.a2j import A2J
from skelops.models.aagcn import AAGCN
from skelops.models.aclnet import ACLNet
from skelops.models.cascade_former import CascadeFormer, CascadeFormerPretext
from skelops.models.ctr_gcn import CTRGCN
from skelops.models.deform_transformer import DeformTransformer, joint_pool
from skelops.models.dg_stgcn import DGSTGCN
from skelops.models.epam_net import EPAMNet, EPAMNetPose, EPAMNetVideo, epam_loss
from skelops.models.finetec import FineTec
from skelops.models.halp import BiGRU, HaLP
from skelops.models.hiclr import HiCLR, HiCLRDSTA, HiCLRGCN
from skelops.models.hyper_gcn import HyperGCN
from skelops.models.m_mixer import MMixer
from skelops.models.mamp import MAMP
from skelops.models.ms_clr import MSCLR, UnifiedSTGCN
from skelops.models.posec3d import PoseC3D
from skelops.models.psumnet import PSUMNet, PSUMNetPart
from skelops.models.skeleton_mae import SSL, SkeletonMAE
from skelops.models.st_gcn import STGCN
from skelops.models.st_gcn_pp import st_gcn_pp
from skelops.models.stars import STARS
from skelops.models.unipose import LiftPose, PointPose

__all__ = [
    "A2J",
    "AAGCN",
    "CTRGCN",
    "DGSTGCN",
    "MAMP",
    "MSCLR",
    "SSL",
    "STARS",
    "STGCN",
    "ACLNet",
    "BiGRU",
    "CascadeFormer",
    "CascadeFormerPretext",
    "DeformTransformer",
    "EPAMNet",
    "EPAMNetPose",
    "EPAMNetVideo",
    "FineTec",
    "HaLP",
    "HiCLR",
    "HiCLRDSTA",
    "HiCLRGCN",
    "HyperGCN",
    "LiftPose",
    "LinearProbe",
    "LoadReport",
    "MMixer",
    "PSUMNet",
    "PSUMNetPart",
    "PointPose",
    "PoseC3D",
    "Pretext",
    "SkeletonMAE",
    "UnifiedSTGCN",
    "build_classifier",
    "create_model",
    "create_pretext",
    "epam_loss",
    "joint_pool",
    "list_models",
    "list_pretexts",
    "load_published",
    "published_keys",
    "published_state",
    "register_model",
    "register_pretext",
    "st_gcn_pp",
]
