"""ST-GCN++ (Duan et al., PYSKL, ACM MM 2022, https://arxiv.org/abs/2205.09443)."""

from __future__ import annotations

from skelops.graph import Layout
from skelops.models._registry import register_model
from skelops.models.st_gcn import STGCN


@register_model("st_gcn_pp")
def st_gcn_pp(num_classes: int = 60, layout: str | Layout = "ntu25", **options) -> STGCN:
    """ST-GCN with a learnable graph, unit residuals and multi-scale temporal modules.

    Args:
        num_classes, layout, options: see ``STGCN``.

    Published: NTU RGB+D 60 X-Sub 89.3 % (joint), 1.39 M parameters, 100 frames.
    """
    defaults = {"graph": "spatial", "topology": "learnable", "temporal": "multi"}
    return STGCN(num_classes, layout, **(defaults | {"unit_residual": True} | options))
