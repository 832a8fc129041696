"""What feeds networks today: published feeders, clip by clip in NumPy, and the best plain PyTorch.

Independent of skelops. Both forms make the same batch of the same random numbers: the uniform ones
of a clip by kind, and the normal ones of its noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import NTU25_PARENTS

NW_UCLA_PARENTS = (1, 2, 2, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18)
# fmt: off
NTU25_MIRROR = (
    0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22,
)
# fmt: on
SHORTEST, TURN, NOISE, TAPS = 64, 0.3, 0.01, 15  # of CTR-GCN and HiCLR
JOINT, FOUR = ("joint",), ("joint", "bone", "joint_motion", "bone_motion")

Numbers = Mapping[str, np.ndarray]  # of one clip, by kind
Uniforms = Mapping[str, Tensor]  # (N, k) of a batch


# ---- Clip by clip -------------------------------------------------------------------------------


def axis_turns(angles: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Rotation matrices about x, y and z, each against the usual sense."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return [
        np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]]),
        np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]),
        np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]]),
    ]


def frame_turns(angles: Tensor) -> Tensor:
    """(T, 3, 3) for (T, 3) angles, as CTR-GCN makes them: three stacks and two products."""
    c, s = angles.cos(), angles.sin()
    zero, one = torch.zeros(len(angles), 1), torch.ones(len(angles), 1)

    def matrix(*rows: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([torch.stack(row, dim=-1) for row in rows], dim=1)

    (cx, cy, cz), (sx, sy, sz) = c.split(1, 1), s.split(1, 1)
    x = matrix((one, zero, zero), (zero, cx, sx), (zero, -sx, cx))
    y = matrix((cy, zero, -sy), (zero, one, zero), (sy, zero, cy))
    z = matrix((cz, sz, zero), (-sz, cz, zero), (zero, zero, one))
    return z @ y @ x


def crop_resize_turn(clip: np.ndarray, u: Numbers, frames: int) -> np.ndarray:
    """A clip (C, 300, V, M) padded with empty frames -> (C, frames, V, M): CTR-GCN."""
    C, _, V, M = clip.shape
    length = int((clip.sum(0).sum(-1).sum(-1) != 0).sum())
    first, second = u["frames"].astype(float)
    size = min(max(math.floor((0.5 + 0.5 * first) * length), SHORTEST), length)
    start = int(second * (length - size + 1))
    x = torch.tensor(clip[:, start : start + size], dtype=torch.float)
    x = x.permute(0, 2, 3, 1).contiguous().view(1, 1, C * V * M, size)
    x = F.interpolate(x, size=(C * V * M, frames), mode="bilinear", align_corners=False)
    x = x.view(C, V, M, frames).permute(3, 0, 1, 2).contiguous().view(frames, C, V * M)
    angles = TURN * (2 * torch.from_numpy(u["rotation"]) - 1)
    x = frame_turns(angles.expand(frames, 3)) @ x
    return x.view(frames, C, V, M).permute(1, 0, 2, 3).contiguous().numpy()


def nw_ucla(clip: np.ndarray, u: Numbers, frames: int) -> np.ndarray:
    """A clip (T, 1, V, 3) of any length -> (3, frames, V, 1): turned, boxed, then sampled."""
    value = clip[:, 0] - clip[0, 0, 1]
    x, y, _ = axis_turns(math.pi / 3 * (2 * u["rotation"].astype(float) - 1))
    points = value.reshape(-1, 3) @ (y @ x).T
    low, high = points.min(0), points.max(0)
    boxed = ((points - low) / (high - low) * 2 - 1).reshape(value.shape)
    chosen = (np.sort(u["frames"]) * np.float32(len(clip))).astype(int)
    return np.transpose(boxed[chosen], (2, 0, 1))[..., None]


def _product(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.dot(x.transpose(1, 2, 3, 0), matrix.T).transpose(3, 0, 1, 2)


def hiclr_basic(clip: np.ndarray, u: Numbers, frames: int) -> np.ndarray:
    """Basic view of a clip (3, T, V, M): a shift in time by reflection, then a shear."""
    padding = frames // 6
    start = int(u["frames"][0] * (2 * padding + 1))
    ends = clip[:, :padding][:, ::-1], clip[:, -padding:][:, ::-1]
    x = np.concatenate([ends[0], clip, ends[1]], axis=1)[:, start : start + frames]
    s = 0.5 * (2 * u["shear"].astype(float) - 1)
    return _product(np.array([[1, s[0], s[3]], [s[1], 1, s[4]], [s[2], s[5], 1]]), x)


def hiclr_strong(clip: np.ndarray, u: Numbers, frames: int) -> np.ndarray:
    """Strong view: the basic one, flip, three turns, noise, blur and an axis mask."""
    x = hiclr_basic(clip, u, frames)
    if u["flip"][0] < 0.5:
        x = x[:, :, np.array(NTU25_MIRROR)]
    largest = np.where(np.arange(3) == int(3 * u["rotation"][3]), 30.0, 1.0)
    for matrix in axis_turns(np.deg2rad(u["rotation"][:3].astype(float) * largest)):
        x = _product(matrix, x)
    if u["gates"][2] < 0.5:
        noise = u["noise"] if "noise" in u else np.random.normal(0, 1, x.shape)
        x = x + NOISE * noise
    if u["blur"][1] < 0.5:
        k = torch.arange(TAPS, dtype=torch.double) - TAPS // 2
        taps = (-(k**2) / (2 * (0.1 + 1.9 * float(u["blur"][0])) ** 2)).exp()
        C, T, V, M = x.shape
        rows = torch.from_numpy(np.ascontiguousarray(x)).view(1, C, T, V * M)
        weight = taps.view(1, 1, TAPS, 1).expand(C, -1, -1, -1)
        x = F.conv2d(rows, weight, padding=(TAPS // 2, 0), groups=C).view(C, T, V, M).numpy()
    if u["axis"][0] < 0.5:
        x = x.copy()
        x[int(3 * u["axis"][1])] = 0
    return x


def with_streams(x: np.ndarray, parents: Sequence[int], streams: Sequence[str]) -> np.ndarray:
    """(S C, T, V, M) of (C, T, V, M), bones joint by joint."""
    if streams == JOINT:
        return x
    bone = np.zeros_like(x)
    for joint, parent in enumerate(parents):
        bone[:, :, joint] = x[:, :, joint] - x[:, :, parent]
    motions = []
    for source in (x, bone):
        motion = np.zeros_like(source)
        motion[:, :-1] = source[:, 1:] - source[:, :-1]
        motions.append(motion)
    return np.concatenate([x, bone, *motions])


# ---- Batched ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """What a batch takes from a store, as tensors; absent where a method has no such step."""

    frame: Tensor  # (N, T) rows of the store
    following: Tensor | None  # (N, T), the frames after them
    blend: Tensor | None  # (N, T), their weights
    matrix: Tensor  # (N, 3, 3)
    boxed: tuple[Tensor, ...] | None = None  # all rows of the clips, their clip, clips' lengths
    order: Tensor | None = None  # (N, V)
    noisy: Tensor | None = None  # (K,) samples with noise
    scale: Tensor | None = None  # (K, 3) of the noise
    blurred: Tensor | None = None  # (K,) samples with blur
    filter: Tensor | None = None  # (K, T, T)


def turns(angles: Tensor) -> Tensor:
    """(N, 3, 3) for (N, 3) angles."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    rows = [
        cz * cy, sz * cx + cz * sy * sx, sz * sx - cz * sy * cx,
        -sz * cy, cz * cx - sz * sy * sx, cz * sx + sz * sy * cx,
        sy, -cy * sx, cy * cx,
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def crop_resize_turn_tables(u: Uniforms, bounds: Tensor, frames: int, xyz: Tensor) -> Tables:
    length = bounds[:, 1] - bounds[:, 0]
    first, second = u["frames"].double().unbind(1)
    size = ((0.5 + 0.5 * first) * length).floor().long().clamp(min=SHORTEST).minimum(length)
    begin = bounds[:, 0] + (second * (length - size + 1)).long()
    i = torch.arange(frames, dtype=torch.double, device=xyz.device) + 0.5
    at = (i * size[:, None] / frames - 0.5).clamp(min=0)
    low = at.long()
    frame = begin[:, None] + low
    following = frame + (low < size[:, None] - 1)
    angles = TURN * (2 * u["rotation"].to(xyz) - 1)
    return Tables(frame, following, (at - low).to(xyz), turns(angles))


def nw_ucla_tables(u: Uniforms, bounds: Tensor, frames: int, xyz: Tensor) -> Tables:
    length = bounds[:, 1] - bounds[:, 0]
    frame = bounds[:, :1] + (u["frames"].sort(1).values * length[:, None]).long()
    angles = math.pi / 3 * (2 * u["rotation"].to(xyz) - 1)
    angles[:, 2] = 0
    clip = torch.repeat_interleave(torch.arange(len(length), device=xyz.device), length)
    offset = torch.cat([length.new_zeros(1), length.cumsum(0)[:-1]])
    rows = bounds[clip, 0] + torch.arange(len(clip), device=xyz.device) - offset[clip]
    return Tables(frame, None, None, turns(angles), boxed=(rows, clip, length))


def hiclr_basic_tables(u: Uniforms, bounds: Tensor, frames: int, xyz: Tensor) -> Tables:
    """Of clips that have been resampled to ``frames`` frames."""
    padding = frames // 6
    start = (u["frames"][:, :1] * (2 * padding + 1)).long()
    t = torch.arange(frames, device=xyz.device) + start - padding
    t = torch.where(t < 0, -1 - t, t)
    frame = bounds[:, :1] + torch.where(t >= frames, 2 * frames - 1 - t, t)
    s = 0.5 * (2 * u["shear"].to(xyz) - 1)
    one = torch.ones_like(s[:, 0])
    rows = [one, s[:, 0], s[:, 3], s[:, 1], one, s[:, 4], s[:, 2], s[:, 5], one]
    return Tables(frame, None, None, torch.stack(rows, dim=1).view(-1, 3, 3))


def hiclr_strong_tables(u: Uniforms, bounds: Tensor, frames: int, xyz: Tensor) -> Tables:
    basic = hiclr_basic_tables(u, bounds, frames, xyz)
    axes = torch.arange(3, device=xyz.device)
    largest = torch.where(axes == (3 * u["rotation"][:, 3:]).long(), 30.0, 1.0)
    masked = (u["axis"][:, :1] < 0.5) & (axes == (3 * u["axis"][:, 1:]).long())
    kept = (~masked).to(xyz)
    turned = turns((u["rotation"][:, :3].to(xyz) * largest).deg2rad()) @ basic.matrix
    mirror = torch.tensor(NTU25_MIRROR, device=xyz.device)
    joints = torch.arange(len(mirror), device=xyz.device)
    noisy = (u["gates"][:, 2] < 0.5).nonzero()[:, 0]
    blurred = (u["blur"][:, 1] < 0.5).nonzero()[:, 0]
    t = torch.arange(frames, device=xyz.device)
    distance = (t - t[:, None]).to(xyz)
    sigma = (0.1 + 1.9 * u["blur"][blurred, :1, None]).to(xyz)
    taps = (-(distance**2) / (2 * sigma**2)).exp() * (distance.abs() <= TAPS // 2)
    return Tables(
        basic.frame,
        None,
        None,
        kept[:, :, None] * turned,
        order=torch.where(u["flip"] < 0.5, mirror, joints),
        noisy=noisy,
        scale=NOISE * kept[noisy],
        blurred=blurred,
        filter=taps,
    )


def boxed(
    xyz: Tensor, matrix: Tensor, rows: Tensor, clip: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    """Matrices, and shifts behind them, that map each clip onto [-1, 1]."""
    points = xyz[rows].flatten(1, 2) @ matrix.mT[clip]
    low, high = (
        torch.segment_reduce(extreme, how, lengths=length)
        for extreme, how in ((points.amin(1), "min"), (points.amax(1), "max"))
    )
    scale = 2 / (high - low)
    return scale[:, :, None] * matrix, -1 - scale * low


def batched(
    xyz: Tensor,
    tables: Tables,
    parents: Tensor,
    streams: Sequence[str],
    noise: Tensor | None = None,
) -> Tensor:
    """(N, S C, T, V, M) of a store xyz (F, M, V, C); ``noise`` in place of numbers drawn here."""
    x = xyz[tables.frame]
    if tables.blend is not None:
        x = torch.lerp(x, xyz[tables.following], tables.blend[..., None, None, None])
    if tables.order is not None:
        x = x.take_along_dim(tables.order[:, None, None, :, None], 3)
    N, T, M, V, C = x.shape
    if tables.boxed is None:
        x = x.view(N, -1, C) @ tables.matrix.mT
    else:
        matrix, shift = boxed(xyz, tables.matrix, *tables.boxed)
        x = torch.baddbmm(shift[:, None], x.view(N, -1, C), matrix.mT)
    x = x.view(N, T, M, V, C).permute(0, 4, 1, 3, 2).contiguous()
    if tables.noisy is not None:
        some = x.new_empty(len(tables.noisy), *x.shape[1:]).normal_()
        some = some if noise is None else noise[tables.noisy]
        x[tables.noisy] += tables.scale[:, :, None, None, None] * some
    if tables.blurred is not None:
        some = x[tables.blurred].flatten(3)
        x[tables.blurred] = (tables.filter[:, None] @ some).unflatten(3, (V, M))
    if streams == JOINT:
        return x
    y = x.new_empty(N, 4 * C, T, V, M)
    y[:, :C] = x
    y[:, C : 2 * C] = x - x[:, :, :, parents]
    y[:, 2 * C :, :-1] = y[:, : 2 * C, 1:] - y[:, : 2 * C, :-1]
    y[:, 2 * C :, -1] = 0
    return y


# ---- Methods ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A published augmentation in both forms."""

    frames: int
    drawn: Mapping[str, int]  # uniform numbers per clip, by kind
    per_clip: Callable[[np.ndarray, Numbers, int], np.ndarray]
    tables: Callable[[Uniforms, Tensor, int, Tensor], Tables]
    parents: tuple[int, ...] = NTU25_PARENTS
    padded: int | None = None  # frames of the array (N, C, T, V, M) that holds the clips
    contiguous: bool = False  # that array is stored so, not as a view of (N, T, M, V, C)


_CROP = {"frames": 2, "rotation": 3}
_BASIC = {"frames": 1, "shear": 6}
_STRONG = {**_BASIC, "flip": 1, "rotation": 4, "gates": 3, "blur": 2, "axis": 2}
_UCLA = {"frames": 52, "rotation": 3}
METHODS = {
    "ctr_gcn": Method(64, _CROP, crop_resize_turn, crop_resize_turn_tables, padded=300),
    "mamp": Method(120, _CROP, crop_resize_turn, crop_resize_turn_tables, padded=300),
    "nw_ucla": Method(52, _UCLA, nw_ucla, nw_ucla_tables, NW_UCLA_PARENTS),
    "hiclr_basic": Method(50, _BASIC, hiclr_basic, hiclr_basic_tables, padded=50, contiguous=True),
    "hiclr_strong": Method(
        50, _STRONG, hiclr_strong, hiclr_strong_tables, padded=50, contiguous=True
    ),
}
