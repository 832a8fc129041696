"""GraphMAE's graph isomorphism network, which SkeletonMAE builds on."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops.models.skeleton_mae import PUBLISHED_KEYS, GINEncoder
from skelops.testing.replay import Case, Replay, replays
from skelops.testing.replays.gcn import Options


@replays("THUDM/GraphMAE", "GIN")
def network(case: Case) -> Replay:
    """Nodes (B, V, C) are frames of a clip each; as a decoder the last layer is a plain one."""
    options = Options(case.kwargs)
    sizes = [options.take(name) for name in ("in_dim", "num_hidden", "out_dim")]
    depth, encoding = options.take("num_layers"), options.take("encoding", False)
    options.take("dropout", 0.0)
    options.expect(
        activation=("prelu",), norm=("batchnorm",), residual=(False,), learn_eps=(False,)
    )
    V = case.arrays["in.A"].shape[0]
    model = GINEncoder(*sizes, torch.zeros(V, V), depth, plain=not encoding)

    def call(x: Tensor, A: Tensor) -> Tensor:
        for layer in model.layers:
            layer.A = A
        return model(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)

    return Replay(call, model, PUBLISHED_KEYS, data=("A",))
