"""Masked pre-training: masking, targets and losses of MAMP, CascadeFormer and GraphMAE."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops import ops
from skelops.ops._tokens import scaled_motion
from skelops.testing.replay import Case, NotUnderstood, Replay, replays

MAMP = "maoyunyao/MAMP"


@replays(MAMP, "Wrap", "motion_aware_random_masking")
def masking(case: Case) -> Replay:
    """The published mask is 1 where a token is removed, its order that of the keys."""
    kwargs = case.kwargs
    segment, tau = kwargs["t_patch_size"], kwargs["tau"]

    def call(tokens: Tensor, x: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        x = x.detach()
        options = dict(mask_ratio=kwargs["mask_ratio"], segment=segment, tau=max(tau, 0.0))
        ids_keep, mask, ids_restore = ops.motion_mask(x, noise.detach(), exact=True, **options)
        scaled = scaled_motion(x, segment, tau)
        kept = tokens.gather(1, ids_keep[..., None].expand(-1, -1, tokens.shape[2]))
        return kept, (~mask).to(x.dtype), ids_restore, ids_keep, scaled, scaled.softmax(1)

    return Replay(call)


@replays(MAMP, "Wrap", "forward_loss")
def target_loss(case: Case) -> Replay:
    segment = case.kwargs["t_patch_size"]
    kinds = {
        "loss": {},
        "loss_raw": {"normalise": False},
        "loss_joint": {"stride": 0},
    }

    def call(x: Tensor, pred: Tensor, removed: Tensor) -> tuple[Tensor, ...]:
        results = []
        for name in case.meta["output_names"]:
            if name == "motion":
                frames = ops.motion_target(x, segment=1, normalise=False)
                results.append(frames.view(x.shape))
                continue
            stride = name.removeprefix("loss_stride")
            options = {"stride": int(stride)} if stride.isdigit() else kinds[name]
            mask = removed == 0
            results.append(ops.masked_motion_loss(x, pred, mask, segment=segment, **options))
        return tuple(results)

    unknown = [
        name
        for name in case.meta["output_names"]
        if name not in ("motion", *kinds) and not name.removeprefix("loss_stride").isdigit()
    ]
    if unknown:
        raise NotUnderstood(f"outputs {unknown}")
    return Replay(call, data=("mask",))


def slots(case: Case) -> Replay:
    """The published mask is 1 where a slot is zeroed; only the loss passes a gradient to x."""
    ratio = case.kwargs["mask_ratio"]

    def call(x: Tensor, perm: Tensor, rec: Tensor) -> tuple[Tensor, ...]:
        y, mask = ops.slot_mask(x.detach(), perm.argsort(1).float(), mask_ratio=ratio)
        loss = ops.masked_motion_loss(
            x, rec.flatten(1, 2), mask.flatten(1), segment=1, stride=0, normalise=False
        )
        return y, (~mask).to(torch.uint8), loss

    return Replay(call)


for repository in ("Yusen-Peng/CascadeFormer", "YP4AIresearch/CascadeFormer"):
    replays(repository, "Wrap", "mask_random_global_joints")(slots)


@replays("THUDM/GraphMAE", "Wrap", "sce_loss")
def scaled_cosine(case: Case) -> Replay:
    """One loss per exponent, over nodes that are all masked."""

    def call(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        mask = torch.zeros(1, dtype=torch.bool, device=x.device)
        a, b = (t[:, None, None] for t in (x, y))
        return tuple(ops.masked_cosine_loss(a, b, mask, beta=beta) for beta in case.kwargs["alpha"])

    return Replay(call)
