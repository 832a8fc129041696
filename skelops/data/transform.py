"""Random transforms of clips: which draws a method makes, and the plans they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, unique
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from skelops import _check
from skelops.data import plan as p
from skelops.data.clips import Clips
from skelops.data.plan import ClipPlan
from skelops.data.streams import Streams, make_streams
from skelops.graph import Layout, get_layout
from skelops.ops import random_uniform
from skelops.ops.sample_clips import CORRUPT, DROP, NATIVE

SAMPLINGS = ("crop_resize", "uniform", "reflect", "sorted", "window", "pad")
# Names of shares of missing frames.
SEVERITIES = {"minor": 0.25, "moderate": 0.5, "severe": 0.75}
VIEW_STREAMS = 32  # streams of random numbers that a view owns


@unique
class _Stream(IntEnum):
    """Every augmentation draws from a stream of its own: switching one leaves the others alone."""

    FRAMES = 0
    ROTATION = 1
    SHEAR = 2
    SCALE = 3
    SHIFT = 4
    FLIP = 5
    TIME_FLIP = 6
    AXIS = 7
    GATES = 8
    CORRUPTED = 9
    CORRUPTION = 10
    PART = 11
    DROPPED = 12
    BLUR = 13
    NOISE = 14
    MISSING = 15


SENSORS = len(_Stream)  # the first of the streams that sensors draw from, behind the augmentation


@dataclass(frozen=True)
class ClipTransform:
    """How a clip becomes a training or test sample.

    Transforms apply in this order: centring and alignment, scale, shear, rotation, flip, axis mask,
    shift, corruption and removal of joints, noise, blur. All of them are one affine map, one table
    of joints, one table of frames and one filter per sample, see :func:`skelops.sample_clips`.

    Args:
        frames: T, frames of a sample.
        sampling: "crop_resize" (crop of a random share, resampled linearly; central crop in test),
            "uniform" (one random frame in each of T bins, loops if short; PYSKL), "reflect"
            (resample to T, then shift by up to T / padding_ratio with reflection; AimCLR),
            "sorted" (T sorted random frames, with replacement; NW-UCLA), "window" (T consecutive
            frames, loops if short) or "pad" (the first T frames, then empty ones).
        share: bounds of the random share of "crop_resize".
        shortest: crops are not shorter than this, in frames, unless the clip is.
        test_share: share of the central crop in test; 1 for "reflect".
        padding_ratio: of "reflect".
        num_clips: samples per clip in test, whose scores are averaged ("uniform").
        center: subtract this joint of person 0 in the clip's first frame that is not empty; True
            for the middle of the spine (else the root of the layout), False for none.
        align: rotate each clip so that its first spine points along +z and its first shoulder line
            along +x (PYSKL, HaLP).
        unit_box: scale each axis of the clip to [-1, 1] (NW-UCLA).
        rotation: largest angle about x, y and z in radians, drawn uniformly in both directions.
        tilt: (main, others) in degrees: one random axis turns by U(0, main), the others by
            U(0, others), instead of ``rotation`` (AimCLR, HiCLR; one-sided, as published).
        scale: each axis times 1 + U(-scale, scale) (BRL).
        shift: translation U(-shift, shift) along each axis, in units of the data.
        shear: largest shear entry; ``shear_order`` as in :func:`skelops.data.plan.shear`.
        corrupt: joints that are corrupted in half of the samples (HaLP), which then are not
            sheared: half of those times set to zero, half multiplied by a random 3 x 3 matrix.
        flip: probability that left and right joints are exchanged; ``mirror`` also negates x.
        time_flip: probability that the frames are reversed.
        axis_mask: probability that one axis is set to zero.
        noise: standard deviation of Gaussian noise, in ``noise_p`` of the samples.
        blur: bounds of the standard deviation in frames of a Gaussian filter over time of
            ``blur_size`` taps, in ``blur_p`` of the samples; not normalised, as published, unless
            ``blur_normalise``.
        part_drop: probability that one limb is set to zero (ACLNet).
        joint_drop: probability that random joints are set to zero, each with probability 1/5.
        missing: share of the frames that are lost and left empty, in test too, where it is the same
            frames in every run; "minor" 1/4, "moderate" 1/2 or "severe" 3/4 (FineTec).
        missing_seed: which frames are lost in a test: another number, other frames.
        missing_once: whether samples of a training clip lose the same frames in every epoch, as of
            a recording with losses. Default: others each time.
        gaps: which frames these are: "random" ones, all but evenly spaced ones ("regular"), the
            first ("prefix"), the last ("suffix"), those in the "middle", or "any" of these, drawn
            for each sample.
        native_motion, root, mean_scores, parents: see :func:`skelops.data.make_streams`.
        keep_missing: see :func:`skelops.sample_clips`.
        persons: M of the samples: the first ones, then empty ones where the data have fewer.
            Default: as many as the data have.
        repeat_person: who is never seen in a clip is replaced by its first person (CTR-GCN on
            NTU RGB+D 120) instead of staying empty.

    Raises:
        ValueError: unknown sampling, or numbers out of range.
    """

    frames: int = 64
    sampling: str = "crop_resize"
    share: tuple[float, float] = (0.5, 1.0)
    shortest: int = 64
    test_share: float = 0.95
    padding_ratio: int = 6
    num_clips: int = 1
    center: bool | int = True
    align: bool = False
    unit_box: bool = False
    rotation: float | tuple[float, float, float] = 0.0
    tilt: tuple[float, float] | None = None
    scale: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    shear_order: str = "hiclr"
    corrupt: int = 0
    flip: float = 0.0
    mirror: bool = False
    time_flip: float = 0.0
    axis_mask: float = 0.0
    noise: float = 0.0
    noise_p: float = 0.5
    blur: tuple[float, float] | None = None
    blur_p: float = 0.5
    blur_size: int = 15
    blur_normalise: bool = False
    part_drop: float = 0.0
    joint_drop: float = 0.0
    missing: float | str = 0.0
    missing_seed: int = 0
    missing_once: bool = False
    gaps: str = "random"
    native_motion: bool = False
    mean_scores: bool = False
    root: int | bool | None = None
    parents: tuple[int, ...] | str | None = None
    keep_missing: bool = True
    persons: int | None = None
    repeat_person: bool = False

    def __post_init__(self) -> None:
        name = "ClipTransform"
        if self.sampling not in SAMPLINGS:
            raise _check.fail(name, f"sampling in {SAMPLINGS}", repr(self.sampling))
        if isinstance(self.missing, str):
            if self.missing not in SEVERITIES:
                known = f"missing as a share or in {tuple(SEVERITIES)}"
                raise _check.fail(name, known, repr(self.missing))
            object.__setattr__(self, "missing", SEVERITIES[self.missing])
        if self.gaps not in (*p.GAPS, "any"):
            raise _check.fail(name, f"gaps in {(*p.GAPS, 'any')}", repr(self.gaps))
        if self.missing and (self.noise or self.blur):
            raise _check.fail(name, "missing frames without noise and blur", self.missing)
        for key in ("frames", "shortest", "padding_ratio", "num_clips", "persons"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise _check.fail(name, f"{key} >= 1", value)
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise _check.fail(name, "share with 0 < low <= high <= 1", self.share)
        for key in ("flip", "time_flip", "axis_mask", "noise_p", "blur_p", "part_drop",
                    "joint_drop", "test_share", "missing"):  # fmt: skip
            if not 0 <= getattr(self, key) <= 1:
                raise _check.fail(name, f"{key} in [0, 1]", getattr(self, key))
        for key in ("scale", "shift", "shear", "noise", "corrupt"):
            if getattr(self, key) < 0:
                raise _check.fail(name, f"{key} >= 0", getattr(self, key))
        if self.blur is not None and not 0 < self.blur[0] <= self.blur[1]:
            raise _check.fail(name, "blur with 0 < low <= high", self.blur)
        if self.blur_size % 2 == 0:
            raise _check.fail(name, "blur_size odd", self.blur_size)
        if self.shear_order not in p.SHEAR_ORDERS:
            expected = f"shear_order in {tuple(p.SHEAR_ORDERS)}"
            raise _check.fail(name, expected, repr(self.shear_order))

    def check(self, source: Layout, target: Layout, dims: int) -> None:
        """Whether clips can be transformed so.

        Args:
            source: joint layout of the clips.
            target: that of the samples.
            dims: coordinates per joint.

        Raises:
            ValueError: a joint or a part that the layouts lack, or what needs 3-D clips.
        """
        name, V = "ClipTransform", target.num_joints
        spatial = [key for key in ("align", "shear", "corrupt", "tilt") if getattr(self, key)]
        if spatial and dims != 3:
            raise _check.fail(name, f"3-D clips for {', '.join(spatial)}", f"{dims}-D ones")
        if not isinstance(self.center, bool) and not 0 <= self.center < source.num_joints:
            expected = f"center in 0..{source.num_joints - 1} of {source.name}"
            raise _check.fail(name, expected, self.center)
        if self.corrupt > V:
            raise _check.fail(name, f"corrupt <= {V} joints of {target.name}", self.corrupt)
        if self.part_drop and not _limbs(target):
            raise _check.fail(name, "a layout with parts for part_drop", target.name)

    def streams(self, names: Sequence[str] | str, layout: str | Layout, **options) -> Streams:
        """The streams of this method, see :func:`skelops.data.make_streams`.

        Raises:
            ValueError: as there, and for motion before resampling of clips that are changed after.
        """
        given = {k: getattr(self, k) for k in ("native_motion", "mean_scores", "root", "parents")}
        streams = make_streams(names, layout, **{**given, **options})
        changed = [k for k in ("time_flip", "noise", "blur", "unit_box") if getattr(self, k)]
        if changed and any(kind & NATIVE for kind in streams.kinds):
            expected = f"no native_motion with {', '.join(changed)}"
            raise _check.fail("ClipTransform", expected, streams.names)
        return streams

    # ---- Plans ----------------------------------------------------------------------------------

    def plan(
        self,
        geometry: Geometry,
        clip: Tensor,
        draw: Tensor,
        *,
        train: bool,
        seed: int = 0,
        view: int = 0,
    ) -> ClipPlan:
        """The plan of a batch.

        Args:
            geometry: lengths, first frames and layout of the clips.
            clip: (N,) int64, clips of the batch.
            draw: (N,) int64, what the random numbers depend on, with ``seed`` and ``view``; in test
                the clip number times ``num_clips`` plus the number of the sample.
            train: draw; else the deterministic test form without augmentation.
            seed, view: key of the random numbers; two views of one clip are independent.
        """

        def uniform(stream: _Stream, count: int) -> Tensor:
            return random_uniform(draw, count, seed=seed, stream=VIEW_STREAMS * view + stream)

        length = geometry.length[clip]
        start = geometry.start[clip]
        frame, blend = self._train_frames(length, uniform) if train else self._test_frames(
            length, draw % self.num_clips)  # fmt: skip
        if self.missing:
            which = clip if train and self.missing_once else draw
            key = seed if train else self.missing_seed
            stream = VIEW_STREAMS * view + _Stream.MISSING
            lost = random_uniform(which, self.frames + 1, seed=key, stream=stream)
            frame = p.lose_frames(frame, float(self.missing), lost, self.gaps)
        still = geometry.affine[clip]
        plan = ClipPlan(
            torch.stack([start, start + length], dim=1),
            frame,
            p.two_branches(still),
            blend,
            person=None if geometry.person is None else geometry.person[clip],
            unit_box=self.unit_box,
            keep_missing=self.keep_missing,
        )
        return self._augment(plan, geometry, still, draw, uniform, seed, view) if train else plan

    def _train_frames(self, length: Tensor, uniform) -> tuple[Tensor, Tensor | None]:
        T = self.frames
        blend = None
        if self.sampling == "crop_resize":
            u = uniform(_Stream.FRAMES, 2).double()
            low, high = self.share
            size = p.crop_size(low + (high - low) * u[:, 0], length, self.shortest)
            frame, blend = p.resize((u[:, 1] * (length - size + 1)).long(), size, T)
        elif self.sampling == "uniform":
            frame = uniform_frames(length, T, uniform(_Stream.FRAMES, T + 1))
        elif self.sampling == "reflect":
            padding = T // self.padding_ratio
            shift = (uniform(_Stream.FRAMES, 1)[:, 0] * (2 * padding + 1)).long()
            at = p.reflect(shift, torch.full_like(length, T), T, padding)
            frame, blend = (x.gather(1, at) for x in p.resize(0 * length, length, T))
        elif self.sampling == "sorted":
            frame = (uniform(_Stream.FRAMES, T).sort(1).values * length[:, None]).long()
        elif self.sampling == "window":
            spare = (length - T).clamp(min=0)
            frame = p.loop((uniform(_Stream.FRAMES, 1)[:, 0] * (spare + 1)).long(), length, T)
        else:
            frame = first_frames(length, T)
        if self.time_flip:
            turned = uniform(_Stream.TIME_FLIP, 1) < self.time_flip
            frame = torch.where(turned, frame.flip(1), frame)
            blend = blend if blend is None else torch.where(turned, blend.flip(1), blend)
        return frame, blend

    def _test_frames(self, length: Tensor, sample: Tensor) -> tuple[Tensor, Tensor | None]:
        T = self.frames
        if self.sampling == "crop_resize":
            return p.resize(*p.central_crop(length, self.test_share), T)
        if self.sampling == "reflect":
            return p.resize(0 * length, length, T)
        if self.sampling == "uniform":
            rows = [
                uniform_test_frames(n, T, self.num_clips)[k]
                for n, k in zip(length.tolist(), sample.tolist(), strict=True)
            ]
            return torch.stack(rows) if rows else length.new_empty(0, T), None
        if self.sampling == "sorted":
            last = length[:, None] - 1
            frame = (torch.arange(T) * (last.double() / max(T - 1, 1))).long()
            return torch.cat([frame[:, :-1], last], dim=1) if T > 1 else frame, None
        if self.sampling == "window":
            return p.loop((length - T).clamp(min=0) // 2, length, T), None
        return first_frames(length, T), None

    def _augment(self, plan, geometry, still, draw, uniform, seed, view) -> ClipPlan:
        N, D = still.shape[:2]
        V = geometry.layout.num_joints
        matrix = torch.eye(D, dtype=torch.float64).expand(N, D, D)
        corrupted = branch = order = blur = noise_std = shift = None

        def signed(stream: _Stream, count: int) -> Tensor:
            return 2 * uniform(stream, count).double() - 1

        if self.scale:
            matrix = torch.diag_embed(1 + self.scale * signed(_Stream.SCALE, D)) @ matrix
        if self.shear or self.corrupt:
            sheared = p.shear(self.shear * signed(_Stream.SHEAR, 6), self.shear_order)
            if self.corrupt:
                u = uniform(_Stream.GATES, 2)
                sheared = torch.where(u[:, :1, None] < 0.5, torch.eye(3), sheared)
                joints = uniform(_Stream.CORRUPTED, V).argsort(1)[:, : self.corrupt]
                branch = p.joint_flags(joints, u[:, 0] < 0.5, V, CORRUPT)
                mixed = signed(_Stream.CORRUPTION, 9).view(N, 3, 3).mT
                corrupted = torch.where(u[:, 1:, None] < 0.5, torch.zeros(3, 3), mixed)
            matrix = sheared @ matrix
        turn = self._rotation(D, uniform, signed)
        if turn is not None:
            matrix = turn @ matrix
        if self.flip:
            flipped = uniform(_Stream.FLIP, 1) < self.flip
            order = torch.where(flipped, torch.tensor(geometry.layout.mirror), torch.arange(V))
            if self.mirror:
                x = torch.ones(D).index_fill(0, torch.tensor(0), -1)
                matrix = torch.where(flipped[..., None], x[:, None] * matrix, matrix)
        kept = torch.ones(N, D)
        if self.axis_mask:
            u = uniform(_Stream.AXIS, 2)
            axis = (u[:, 1:] * D).long()
            kept = 1 - torch.zeros(N, D).scatter(1, axis, (u[:, :1] < self.axis_mask).float())
            matrix = kept[..., None] * matrix
        if self.shift:
            shift = self.shift * signed(_Stream.SHIFT, D) * kept
        if self.noise:
            applied = uniform(_Stream.GATES, 3)[:, 2:] < self.noise_p
            noise_std = self.noise * applied * kept
        if self.blur is not None:
            u = uniform(_Stream.BLUR, 2)
            sigma = self.blur[0] + (self.blur[1] - self.blur[0]) * u[:, 0]
            blur = p.gaussian_taps(sigma, u[:, 1] < self.blur_p, self.blur_size,
                                   self.blur_normalise)  # fmt: skip
        if self.part_drop:
            branch = _dropped(branch, self._part(geometry.layout, uniform, V))
        if self.joint_drop:
            u = uniform(_Stream.DROPPED, 1 + V)
            branch = _dropped(branch, (u[:, :1] < self.joint_drop) & (u[:, 1:] < 0.2))
        first = _after(matrix, still, shift)
        second = None if corrupted is None else _after(corrupted, first)
        return replace(
            plan,
            affine=p.two_branches(first, second),
            order=order,
            branch=branch,
            blur=blur,
            noise_std=noise_std,
            draw=None if noise_std is None else draw,
            seed=seed,
            stream=VIEW_STREAMS * view + _Stream.NOISE,
        )

    def _rotation(self, D: int, uniform, signed) -> Tensor | None:
        if self.tilt is not None:
            u = uniform(_Stream.ROTATION, 4).double()
            main = torch.arange(3) == (3 * u[:, 3:]).long()
            degrees = u[:, :3] * torch.where(main, float(self.tilt[0]), float(self.tilt[1]))
            return p.rotation(degrees.deg2rad())
        largest = torch.tensor(self.rotation, dtype=torch.float64)
        if not largest.any():
            return None
        if D == 2:
            return p.rotation_2d(largest.max() * signed(_Stream.ROTATION, 1)[:, 0])
        return p.rotation(largest * signed(_Stream.ROTATION, 3)) if D == 3 else None

    def _part(self, layout: Layout, uniform, V: int) -> Tensor:
        limbs = _limbs(layout)
        member = torch.zeros(len(limbs), V, dtype=torch.bool)
        for row, joints in zip(member, limbs, strict=True):
            row[list(joints)] = True
        u = uniform(_Stream.PART, 2)
        return member[(u[:, 1] * len(limbs)).long()] & (u[:, :1] < self.part_drop)


def _limbs(layout: Layout) -> list[tuple[int, ...]]:
    return [joints for name, joints in layout.parts.items() if name != "torso"]


def _after(matrix: Tensor, first: Tensor, shift: Tensor | None = None) -> Tensor:
    """(N, D, D + 1): the homogeneous map ``first``, then ``matrix``, then ``shift``."""
    last = matrix.double() @ first.double()
    if shift is not None:
        last[:, :, -1] += shift
    return last.float()


def _dropped(branch: Tensor | None, joints: Tensor) -> Tensor:
    flags = joints.to(torch.uint8) * DROP
    return flags if branch is None else torch.where(joints, flags, branch)


# ---- Frames -------------------------------------------------------------------------------------


def first_frames(length: Tensor, frames: int) -> Tensor:
    """The first frames of each clip, -1 after its end: (N, T)."""
    t = torch.arange(frames).expand(len(length), frames)
    return torch.where(t < length[:, None], t, -1)


def uniform_frames(length: Tensor, frames: int, noise: Tensor) -> Tensor:
    """One random frame in each of T equal parts of the clip, (N, T).

    Clips shorter than T loop from a random start; those shorter than 2 T skip L - T frames chosen
    without replacement; longer ones give a random frame in each of T bins.

    Args:
        length: (N,) int64.
        frames: T.
        noise: (N, T + 1) uniform in [0, 1).

    Source: Duan et al., *PYSKL*, ACM MM 2022, UniformSample.
    """
    T = frames
    n = length[:, None]
    looped = p.loop((noise[:, 0] * length).long(), length, T)
    rank = noise.argsort(1).argsort(1)
    skipped = p.skip_gaps(rank < n - T, T)
    binned = p.one_per_bin((noise[:, :T] * p.bin_sizes(length, T)).long(), length)
    return torch.where(n < T, looped, torch.where(n < 2 * T, skipped, binned))


@lru_cache(maxsize=4096)
def uniform_test_frames(length: int, frames: int, num_clips: int, seed: int = 255) -> Tensor:
    """The published test samples of a clip, (num_clips, T): NumPy's legacy generator, seed 255.

    Clips shorter than T loop from frame i, or from ``floor(i L / num_clips)`` if L >= num_clips.

    Source: Duan et al., *PYSKL*, ACM MM 2022, UniformSample in test mode.
    """
    random = np.random.RandomState(seed)
    starts = [i if length < num_clips else i * length // num_clips for i in range(num_clips)]
    return torch.stack(
        [legacy_uniform_frames(length, frames, whole_clip(random), i) for i in starts]
    )


def whole_clip(random: np.random.RandomState) -> np.random.RandomState:
    """The generator after PYSKL has drawn the share of the clip to use (all) and its place."""
    random.rand()
    random.randint(1)
    return random


def legacy_uniform_frames(
    length: int, frames: int, random: np.random.RandomState, start: int | None = None
) -> Tensor:
    """(T,): the draw of :func:`uniform_frames` that published code makes with NumPy's generator.

    Args:
        length: frames of the clip.
        frames: T.
        random: generator, advanced.
        start: first frame of a clip shorter than T. Default: drawn.
    """
    n = torch.tensor([length])
    if length < frames:
        start = random.randint(0, length) if start is None else start
        return p.loop(torch.tensor([start]), n, frames)[0]
    if length < 2 * frames:
        chosen = torch.zeros(1, frames + 1, dtype=torch.bool)
        chosen[0, random.choice(frames + 1, length - frames, replace=False)] = True
        return p.skip_gaps(chosen, frames)[0]
    offset = random.randint(p.bin_sizes(n, frames)[0].numpy())
    return p.one_per_bin(torch.from_numpy(offset)[None], n)[0]


# ---- Clips --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """What a plan needs to know of the clips, without their frames.

    Args:
        start, length: (N,) int64, first frame in the store and number of frames.
        affine: (N, D, D + 1) float32, centring and alignment of each clip.
        layout: joint layout of the samples.
        person: (N, M') int64, who takes each place, see :class:`ClipPlan`; None for all in order.
    """

    start: Tensor
    length: Tensor
    affine: Tensor
    layout: Layout
    person: Tensor | None = None

    @classmethod
    def of(cls, clips: Clips, transform: ClipTransform, layout: str | None = None) -> Geometry:
        """The geometry of a store: reads one frame of each clip.

        Raises:
            ValueError: clips that the transform does not fit, see :meth:`ClipTransform.check`.
        """
        source, target = get_layout(clips.layout), get_layout(layout or clips.layout)
        transform.check(source, target, clips.dims)
        start = torch.from_numpy(clips.offset[:-1].copy())
        length = torch.from_numpy(np.array(clips.length))
        D = clips.dims
        matrix = torch.eye(D).expand(len(clips), D, D)
        person = places(clips, transform.persons, transform.repeat_person)
        if transform.center is False and not transform.align:
            return cls(start, length, p.homogeneous(matrix), target, person)
        frames = torch.from_numpy(first_seen(clips)[..., :D].astype(np.float64))
        joint = middle(source) if transform.center is True else int(transform.center)
        center = None if transform.center is False else frames[:, joint]
        if transform.align:
            matrix = alignment(frames, source)
        return cls(start, length, p.homogeneous(matrix, center), target, person)


def places(clips: Clips, persons: int | None, repeat: bool) -> Tensor | None:
    """Who takes each place of a sample, (N, M') int64; -1 for nobody, None for all in order.

    Args:
        clips: M persons.
        persons: M'; default M.
        repeat: the first person takes the places of those who are never seen.
    """
    M = clips.num_persons
    wanted = M if persons is None else persons
    if wanted == M and not repeat:
        return None
    person = np.tile(np.where(np.arange(wanted) < M, np.arange(wanted), -1), (len(clips), 1))
    if repeat and len(clips):
        seen = np.logical_or.reduceat(np.asarray(clips.present), clips.offset[:-1])
        seen = np.pad(seen, ((0, 0), (0, max(wanted - M, 0))))[:, :wanted]
        person = np.where(seen, person, 0)
    return torch.from_numpy(person)


def first_seen(clips: Clips) -> np.ndarray:
    """(N, V, C): person 0 in the first frame of each clip that shows them (else the first)."""
    offset = clips.offset
    seen = np.asarray(clips.present)[:, 0]
    frame = np.where(seen, np.arange(len(seen)), len(seen))
    first = np.minimum.reduceat(frame, offset[:-1]) if len(clips) else offset[:-1]
    first = np.where(first < offset[1:], first, offset[:-1])
    return np.asarray(clips.xyz[first, 0])


def joint_named(layout: Layout, *names: str) -> int | None:
    """The first of some joints that the layout has."""
    return next((layout.joint_names.index(n) for n in names if n in layout.joint_names), None)


def middle(layout: Layout) -> int:
    """The joint that becomes the origin: the middle of the spine, else the root of the layout."""
    joint = joint_named(layout, "spine_mid", "spine")
    root = next(v for v, parent in enumerate(layout.parents) if v == parent)
    return root if joint is None else joint


def shoulders(layout: Layout) -> tuple[int, int]:
    """The right and the left shoulder.

    Raises:
        ValueError: the layout names none.
    """
    right, left = joint_named(layout, "right_shoulder"), joint_named(layout, "left_shoulder")
    if right is None or left is None:
        raise _check.fail("alignment", "a layout with shoulders", layout.name)
    return right, left


def alignment(pose: Tensor, layout: Layout) -> Tensor:
    """(N, 3, 3): rotate the spine of each pose (N, V, 3) to +z, then its shoulder line to +x.

    Raises:
        ValueError: the layout names no spine or shoulders.

    Source: the pre-normalisation of 2s-AGCN (Shi et al., CVPR 2019), PYSKL and HaLP.
    """
    low = joint_named(layout, "spine_base", "hip_center", "pelvis", "mid_hip", "waist")
    high = joint_named(layout, "spine_mid", "spine", "thorax", "neck")
    if None in (low, high) or pose.shape[-1] != 3:
        raise _check.fail("alignment", "a 3-D layout with a spine", layout.name)
    right, left = shoulders(layout)
    upright = turn_onto(pose[:, high] - pose[:, low], 2)
    across = (upright @ (pose[:, right] - pose[:, left])[..., None])[..., 0]
    return turn_onto(across, 0) @ upright


def turn_onto(vector: Tensor, axis: int) -> Tensor:
    """(N, 3, 3): the smallest rotation of vectors (N, 3) onto an axis; identity near it or at 0."""
    target = torch.zeros_like(vector)
    target[:, axis] = 1
    normal = torch.linalg.cross(vector, target)
    length = vector.norm(dim=1).clamp(min=torch.finfo(vector.dtype).tiny)
    cosine = (vector[:, axis] / length).clamp(-1, 1)
    angle = cosine.acos()
    unit = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-30)
    a, (b, c, d) = (angle / 2).cos(), (-unit * (angle / 2).sin()[:, None]).unbind(1)
    rows = [
        a * a + b * b - c * c - d * d, 2 * (b * c + a * d), 2 * (b * d - a * c),
        2 * (b * c - a * d), a * a + c * c - b * b - d * d, 2 * (c * d + a * b),
        2 * (b * d + a * c), 2 * (c * d - a * b), a * a + d * d - b * b - c * c,
    ]  # fmt: skip
    turn = torch.stack(rows, dim=1).view(-1, 3, 3)
    still = (normal.abs().sum(1) < 1e-6) | (angle < 1e-6)
    return torch.where(still[:, None, None], torch.eye(3, dtype=vector.dtype), turn)


# ---- Published transforms -----------------------------------------------------------------------

_HICLR = ClipTransform(frames=50, sampling="reflect", center=False, shear=0.5)
TRANSFORMS = {
    "none": ClipTransform(),
    # Uason-Chen/CTR-GCN, NTU RGB+D
    "ctr_gcn": ClipTransform(rotation=0.3),
    # Uason-Chen/CTR-GCN, NW-UCLA
    "nw_ucla": ClipTransform(
        frames=52, sampling="sorted", rotation=(torch.pi / 3, torch.pi / 3, 0.0), unit_box=True
    ),
    # 6UOOON9/Hyper-GCN, NTU RGB+D; joints relative to the root (the spine at the shoulders), which
    # as joint and as bone is itself
    "hyper_gcn": ClipTransform(rotation=0.3, root=True, parents="graph"),
    # kennymckormick/pyskl
    "pyskl": ClipTransform(
        frames=100, sampling="uniform", align=True, native_motion=True, num_clips=10
    ),
    "pyskl_2d": ClipTransform(
        frames=100, sampling="uniform", center=False, native_motion=True, mean_scores=True,
        num_clips=10,
    ),
    # kennymckormick/pyskl, PoseC3D
    "posec3d": ClipTransform(
        frames=48, sampling="uniform", center=False, flip=0.5, mirror=True, num_clips=10
    ),
    # firework8/BRL
    "brl": ClipTransform(
        sampling="uniform", align=True, native_motion=True, num_clips=10, scale=0.1, rotation=0.3,
        flip=0.5,
    ),
    # firework8/ACLNet, joint stream
    "aclnet": ClipTransform(
        frames=100, sampling="uniform", native_motion=True, num_clips=10, rotation=0.2
    ),
    # maoyunyao/MAMP, fine-tuning
    "mamp": ClipTransform(frames=120, rotation=0.3),
    # JHang2020/HiCLR; clips prepared by skelops.data.normalize.hiclr
    "hiclr_basic": _HICLR,
    "hiclr_strong": replace(
        _HICLR, flip=0.5, tilt=(30.0, 1.0), noise=0.01, blur=(0.1, 2.0), axis_mask=0.5
    ),
    # anshulbshah/HaLP; clips prepared by skelops.data.normalize.halp
    "halp": ClipTransform(share=(0.1, 1.0), shear=1.0, shear_order="halp", corrupt=15,
                          center=False),
    "halp_linear": ClipTransform(center=False),
}  # fmt: skip


def get_transform(transform: str | ClipTransform, **changes) -> ClipTransform:
    """A published transform by name, with changes; a transform is returned changed.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    if isinstance(transform, str):
        if transform not in TRANSFORMS:
            expected = f"one of {', '.join(TRANSFORMS)}"
            raise _check.fail("get_transform", expected, repr(transform))
        transform = TRANSFORMS[transform]
    return replace(transform, **changes)
