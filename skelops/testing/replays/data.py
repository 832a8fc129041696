"""Published data transforms."""

from __future__ import annotations

import torch
from torch import Tensor

from skelops.data import transforms
from skelops.testing.replay import Case, Replay, replays


@replays("6UOOON9/Hyper-GCN", "valid_crop_resize")
@replays("Uason-Chen/CTR-GCN", "valid_crop_resize")
def crop_resize(case: Case) -> Replay:
    kwargs = case.kwargs
    p = kwargs["p_interval"]

    def call(x: Tensor, share: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        length = torch.tensor([kwargs["valid_frame_num"]], device=x.device)
        if len(p) == 1:
            start, size = transforms.test_crop(length, p[0])
        else:
            noise = torch.stack([share.double(), torch.zeros_like(share).double()], dim=1)
            size = transforms.train_crop(length, noise, tuple(p))[1]
        frames = x.transpose(0, 1)  # (C, T, V, M) -> (T, C, V, M)
        return transforms.resize(frames, start, size, kwargs["window"])[0].transpose(0, 1)

    return Replay(call)


@replays("6UOOON9/Hyper-GCN", "random_rot")
@replays("Uason-Chen/CTR-GCN", "random_rot")
def random_rot(case: Case) -> Replay:
    def call(x: Tensor, angles: Tensor) -> Tensor:
        frames = x.permute(1, 3, 2, 0)[None]  # (C, T, V, M) -> (1, T, M, V, C)
        return transforms.rotate(frames, angles[None])[0].permute(3, 0, 2, 1)

    return Replay(call)
