"""Thin models of published methods, and their checkpoints."""

from skelops.models._published import LoadReport, load_published, published_keys, published_state
from skelops.models._registry import create_model, list_models, register_model
from skelops.models.aagcn import AAGCN
from skelops.models.ctr_gcn import CTRGCN
from skelops.models.dg_stgcn import DGSTGCN
from skelops.models.epam_net import EPAMNet, EPAMNetPose, epam_loss
from skelops.models.hyper_gcn import HyperGCN
from skelops.models.posec3d import PoseC3D
from skelops.models.psumnet import PSUMNet, PSUMNetPart
from skelops.models.st_gcn import STGCN
from skelops.models.st_gcn_pp import st_gcn_pp

__all__ = [
    "AAGCN",
    "CTRGCN",
    "DGSTGCN",
    "STGCN",
    "EPAMNet",
    "EPAMNetPose",
    "HyperGCN",
    "LoadReport",
    "PSUMNet",
    "PSUMNetPart",
    "PoseC3D",
    "create_model",
    "epam_loss",
    "list_models",
    "load_published",
    "published_keys",
    "published_state",
    "register_model",
    "st_gcn_pp",
]
