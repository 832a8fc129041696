"""What happens to each clip of a batch, as tensors: built from draws by name, replayed exactly.

The functions turn draws (crop starts, angles, shear entries, ...) into entries of a
:class:`ClipPlan`. They are pure, so that a published augmentation replays from its recorded draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from skelops.data.streams import Streams
from skelops.ops import sample_clips

GAPS = ("random", "regular", "prefix", "suffix", "middle")


@dataclass(frozen=True)
class ClipPlan:
    """The per-sample arguments of :func:`skelops.sample_clips`; see there for their meaning.

    Args:
        bounds: (N, 2) int64, first frame of each clip in the store, and one past its last.
        frame: (N, T) int64 first taps, counted from the start of the clip; -1 for an empty frame.
        blend: (N, T) float32 weights of the following frames; None for zeros.
        affine: (N, 2, D, D + 1) float32 transforms of homogeneous points.
        order, person, branch, blur, noise, noise_std, draw: see :func:`skelops.sample_clips`.
        seed, stream: key of the generated noise.
        keep_missing, unit_box: see :func:`skelops.sample_clips`.
    """

    bounds: Tensor
    frame: Tensor
    affine: Tensor
    blend: Tensor | None = None
    order: Tensor | None = None
    person: Tensor | None = None
    branch: Tensor | None = None
    blur: Tensor | None = None
    noise: Tensor | None = None
    noise_std: Tensor | None = None
    draw: Tensor | None = None
    seed: int = 0
    stream: int = 0
    keep_missing: bool = True
    unit_box: bool = False

    def to(self, device: torch.device | str, non_blocking: bool = True) -> ClipPlan:
        """The plan on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: t.to(device, non_blocking=non_blocking)
            for name, t in tensors.items()
            if isinstance(t, Tensor)
        }
        return replace(self, **moved)

    def apply(
        self,
        xyz: Tensor,
        streams: Streams,
        conversion: tuple[Tensor, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The batch (N, S * C, T, V, M) of a store xyz (F, M, V, C) on the plan's device.

        Args:
            xyz: the frames of all clips.
            streams: what to return, see :func:`skelops.data.make_streams`.
            conversion: joint tables (index, weight) of :func:`skelops.graph.conversion`.
            dtype: of the result.
        """
        index, weight = conversion or (None, None)
        start = self.bounds[:, :1]
        blend = self.frame.new_zeros(self.frame.shape, dtype=torch.float32)
        return sample_clips(
            xyz,
            self.bounds,
            torch.where(self.frame < 0, self.frame, self.frame + start),
            blend if self.blend is None else self.blend,
            self.affine,
            streams.parent,
            streams.kinds,
            part=streams.part,
            person=self.person,
            convert=index,
            convert_weight=weight,
            order=self.order,
            branch=self.branch,
            blur=self.blur,
            noise=self.noise,
            noise_std=self.noise_std,
            draw=self.draw,
            seed=self.seed,
            stream=self.stream,
            keep_missing=self.keep_missing,
            unit_box=self.unit_box,
            dtype=dtype,
        )


# ---- Frames -------------------------------------------------------------------------------------


def kept_frames(gap: Tensor, lost: Tensor, noise: Tensor) -> Tensor:
    """Which frames a gap leaves, (N, T) bool.

    Args:
        gap: (N,) int64, of ``GAPS``: random frames, all but evenly spaced ones, the first, the last
            or those in the middle.
        lost: (N,) int64, how many frames are missing, fewer than T.
        noise: (N, T) uniform in [0, 1); of random frames those with the least are missing.
    """
    T = noise.shape[1]
    t = torch.arange(T, device=noise.device).expand_as(noise)
    lost = lost[:, None]
    left = (T - lost) // 2
    kept = torch.stack(
        [
            noise.argsort(1).argsort(1) >= lost,
            t * (T - lost) % T < T - lost,
            t >= lost,
            t < T - lost,
            (t < left) | (t >= left + lost),
        ]
    )
    return kept.take_along_dim(gap[None, :, None], 0)[0]


def lose_frames(frame: Tensor, share: float, noise: Tensor, gaps: str = "random") -> Tensor:
    """A share of the frames, rounded and never all, becomes empty: -1.

    Args:
        frame: (N, T) int64.
        share: of the frames.
        noise: (N, T + 1) uniform in [0, 1): of the frames, and of the kind of gap.
        gaps: one of ``GAPS``, or "any" for one drawn for each sample.
    """
    N, T = frame.shape
    lost = torch.full((N,), min(round(share * T), T - 1))
    drawn = (noise[:, -1] * len(GAPS)).long()
    gap = drawn if gaps == "any" else torch.full((N,), GAPS.index(gaps))
    return torch.where(kept_frames(gap, lost, noise[:, :-1]), frame, -1)


def crop_size(share: Tensor, length: Tensor, shortest: int) -> Tensor:
    """Frames of a crop, (N,) int64: min(max(floor(share L), shortest), L)."""
    return torch.minimum((share * length).floor().long().clamp(min=shortest), length)


def resize(start: Tensor, size: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Crops resampled linearly to ``frames`` frames: (N, T) first taps and weights.

    Frame i is read at ``max((i + 0.5) size / frames - 0.5, 0)`` of the crop: half-pixel centres,
    no antialiasing, edges clamped; in single precision, as ``torch.nn.functional.interpolate``
    has it in the published feeders.

    Args:
        start: (N,) int64, first frame of each crop in its clip.
        size: (N,) int64, frames of each crop.
        frames: T.
    """
    i = torch.arange(frames, dtype=torch.float32) + 0.5
    position = (size[:, None].float() / frames * i - 0.5).clamp(min=0)
    low = position.long()
    inside = low < size[:, None] - 1
    return start[:, None] + low, (position - low) * inside


def central_crop(length: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Start and size of the crop that drops ``floor((1 - share) L / 2)`` frames on both sides."""
    start = ((1 - share) * length.double() / 2).long()
    return start, length - 2 * start


def reflect(start: Tensor, length: Tensor, frames: int, padding: int) -> Tensor:
    """Frame ``t + start - padding``, reflected at both ends (edge frames repeat): (N, T)."""
    t = torch.arange(frames) + (start - padding)[:, None]
    n = length[:, None]
    t = torch.where(t < 0, -1 - t, t)
    return torch.where(t >= n, 2 * n - 1 - t, t).clamp(min=0).minimum(n - 1)


def loop(start: Tensor, length: Tensor, frames: int) -> Tensor:
    """Consecutive frames from ``start``, the clip repeated from its beginning: (N, T)."""
    return (start[:, None] + torch.arange(frames)) % length[:, None]


def skip_gaps(chosen: Tensor, frames: int) -> Tensor:
    """Frame i plus the number of chosen gaps before or at it: (N, T).

    Args:
        chosen: (N, T + 1) bool, gaps that skip a frame (n - T of them for n frames).
        frames: T.
    """
    return torch.arange(frames) + chosen.long().cumsum(1)[:, :frames]


def one_per_bin(offset: Tensor, length: Tensor) -> Tensor:
    """Frames ``floor(i L / T) + offset``, one in each of T equal bins: (N, T).

    Args:
        offset: (N, T) int64, place in the bin; see :func:`bin_sizes`.
        length: (N,) int64.
    """
    T = offset.shape[1]
    return length[:, None] * torch.arange(T) // T + offset


def bin_sizes(length: Tensor, frames: int) -> Tensor:
    """(N, T) int64, frames in each of T equal bins of the clips."""
    edges = length[:, None] * torch.arange(frames + 1) // frames
    return edges.diff(dim=1)


# ---- Points -------------------------------------------------------------------------------------


def rotation(angles: Tensor) -> Tensor:
    """(N, 3, 3): R = Rz Ry Rx for angles (N, 3) in radians about x, y and z.

    As published, Rx = [[1, 0, 0], [0, c, s], [0, -s, c]], Ry = [[c, 0, -s], [0, 1, 0], [s, 0, c]],
    Rz = [[c, s, 0], [-s, c, 0], [0, 0, 1]]: each turns against the usual sense.
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    rows = [
        cz * cy, sz * cx + cz * sy * sx, sz * sx - cz * sy * cx,
        -sz * cy, cz * cx - sz * sy * sx, cz * sx + sz * sy * cx,
        sy, -cy * sx, cy * cx,
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def rotation_2d(angle: Tensor) -> Tensor:
    """(N, 2, 2): [[c, -s], [s, c]] for angles (N,) in radians."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], dim=1).view(-1, 2, 2)


SHEAR_ORDERS = {"hiclr": (0, 3, 1, 4, 2, 5), "halp": (0, 1, 2, 3, 4, 5)}


def shear(entries: Tensor, order: str) -> Tensor:
    """(N, 3, 3) with ones on the diagonal and six draws (N, 6) around it.

    Args:
        entries: (N, 6).
        order: "hiclr" for [[1, s0, s3], [s1, 1, s4], [s2, s5, 1]] (AimCLR, HiCLR, MS-CLR), "halp"
            for [[1, s0, s1], [s2, 1, s3], [s4, s5, 1]] (CMD, HaLP).
    """
    matrix = torch.ones(len(entries), 9, dtype=entries.dtype)
    matrix[:, [1, 2, 3, 5, 6, 7]] = entries[:, list(SHEAR_ORDERS[order])]
    return matrix.view(-1, 3, 3)


def homogeneous(matrix: Tensor, center: Tensor | None = None) -> Tensor:
    """(N, D, D + 1) float32: the map x -> matrix (x - center).

    Args:
        matrix: (N, D, D).
        center: (N, D); default zeros.
    """
    last = torch.zeros_like(matrix[:, :, :1])
    if center is not None:
        last = -matrix @ center.to(matrix)[:, :, None]
    return torch.cat([matrix, last], dim=2).float()


def two_branches(first: Tensor, second: Tensor | None = None) -> Tensor:
    """(N, 2, D, D + 1): the transforms of all joints and of the corrupted ones (default: same)."""
    return torch.stack([first, first if second is None else second], dim=1)


def gaussian_taps(
    sigma: Tensor, applied: Tensor, size: int = 15, normalise: bool = False
) -> Tensor:
    """(N, size) float32 blur taps exp(-k^2 / (2 sigma^2)); a single one where not applied.

    Args:
        sigma: (N,), in frames.
        applied: (N,) bool.
        size: odd number of taps.
        normalise: divide by their sum, which the published filter does not.
    """
    k = torch.arange(size) - size // 2
    taps = (-(k**2) / (2 * sigma.double()[:, None] ** 2)).exp()
    if normalise:
        taps = taps / taps.sum(1, keepdim=True)
    return torch.where(applied[:, None], taps, (k == 0).double()).float()


def joint_flags(joints: Sequence[int] | Tensor, applied: Tensor, num_joints: int, value: int) \
        -> Tensor:  # fmt: skip
    """(N, V) uint8 with ``value`` at the joints, (J,) or (N, J), of the samples applied, else 0."""
    index = torch.as_tensor(joints)
    index = index.expand(len(applied), -1) if index.dim() == 1 else index
    flags = torch.zeros(len(applied), num_joints, dtype=torch.uint8)
    return flags.scatter(1, index, value) * applied[:, None]
