"""Published data transforms, through ``sample_clips`` wherever it is what stands for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skelops.data import normalize
from skelops.data import plan as p
from skelops.data.plan import ClipPlan
from skelops.data.streams import Streams, make_streams
from skelops.data.transform import (
    get_transform,
    legacy_uniform_frames,
    turn_onto,
    uniform_test_frames,
    whole_clip,
)
from skelops.graph import conversion, get_layout
from skelops.ops.sample_clips import CORRUPT, DROP, MOTION_MEAN, SCORE_MEAN
from skelops.testing.replay import Case, NotUnderstood, Replay, replays
from skelops.testing.replays.gcn import Options

NTU = get_layout("ntu25")
LIMBS = ("left_arm", "left_leg", "right_arm", "right_leg")  # in the order of ACLNet's Part_Drop
BATCH = (0, 2, 4, 3, 1)  # (N, C, T, V, M) <-> (N, T, M, V, C)
PYSKL = (0, 4, 2, 3, 1)  # (N, M, T, V, C) <-> (N, C, T, V, M)


def still(x: Tensor) -> ClipPlan:
    """The plan that leaves the clips x (N, C, T, V, M) as they are."""
    N, C, T = x.shape[:3]
    start = torch.arange(N) * T
    matrix = torch.eye(C, dtype=torch.float64).expand(N, C, C)
    return ClipPlan(
        torch.stack([start, start + T], dim=1),
        torch.arange(T).expand(N, T),
        p.two_branches(p.homogeneous(matrix)),
        keep_missing=False,
    )


def sample(x: Tensor, plan: ClipPlan | None = None, streams: Streams | None = None) -> Tensor:
    """Clips (N, C, T, V, M), and what a plan makes of them in the same layout."""
    N, C, T, V, M = x.shape
    if streams is None:
        streams = Streams(torch.full((1, V), -1), (0,))
    store = x.permute(0, 2, 4, 3, 1).reshape(N * T, M, V, C)
    plan = (still(x) if plan is None else plan).to(x.device)
    return plan.apply(store, streams.to(x.device), dtype=x.dtype)


def linear(matrix: Tensor, applied: Tensor | None = None) -> Tensor:
    """Transforms of all joints, identity where not applied."""
    if applied is not None:
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        matrix = torch.where(applied[:, None, None], matrix, eye)
    return p.two_branches(p.homogeneous(matrix))


# ---- JHang2020/HiCLR ----------------------------------------------------------------------------


def hiclr(kind: str) -> Callable:
    """Register ``fields(case, plan, *draws) -> changes of the plan`` for a HiCLR transform."""

    def add(fields: Callable) -> Callable:
        def build(case: Case) -> Replay:
            def call(x: Tensor, *draws: Tensor) -> Tensor:
                drawn = [d.cpu() for d in draws]
                return sample(x, replace(still(x), **fields(case, x, *drawn)))

            return Replay(call)

        replays("JHang2020/HiCLR", kind)(build)
        return fields

    return add


def reflected(case: Case, x: Tensor, start: Tensor) -> Tensor:
    T = x.shape[2]
    padding = T // case.kwargs["temperal_padding_ratio"]
    return p.reflect(start, torch.full_like(start, T), T, padding)


def swapped(applied: Tensor) -> Tensor:
    mirror = torch.tensor(NTU.mirror)
    return torch.where(applied[:, None], mirror, torch.arange(len(mirror)))


def masked(axis: Tensor, applied: Tensor) -> Tensor:
    """(N, 3): 0 at the masked axis."""
    return 1 - torch.nn.functional.one_hot(axis, 3) * applied[:, None]


@hiclr("temperal_crop")
def temporal_crop(case, x, start):
    return {"frame": reflected(case, x, start)}


@hiclr("shear")
def shear(case, x, s):
    return {"affine": linear(p.shear(s, "hiclr"))}


@hiclr("random_rotate")
def rotate(case, x, main_axis, degrees):
    return {"affine": linear(p.rotation(degrees.deg2rad()))}


@hiclr("random_spatial_flip")
def spatial_flip(case, x, u):
    return {"order": swapped(u < case.kwargs["p"])}


@hiclr("random_time_flip")
def time_flip(case, x, u):
    frame = torch.arange(x.shape[2])
    return {"frame": torch.where((u < case.kwargs["p"])[:, None], frame.flip(0), frame)}


@hiclr("axis_mask")
def axis_mask(case, x, u, axis):
    return {"affine": linear(torch.diag_embed(masked(axis, u < case.kwargs["p"]).double()))}


@hiclr("gaus_noise")
def gaussian_noise(case, x, u, noise):
    return {"noise": noise * (u < case.kwargs["p"])[:, None, None, None, None]}


@hiclr("gaus_filter")
def gaussian_blur(case, x, sigma, u):
    return {"blur": p.gaussian_taps(sigma, u < 0.5, case.kwargs["kernel"])}


@hiclr("basic_aug")
@hiclr("strong_aug")
def views(case, x, *draws):
    """The steps of ``aug_method``, of which the case has draws, in their order."""
    drawn = dict(zip(case.meta["input_names"][1:], draws, strict=True))
    fields = {}
    matrix = torch.eye(3, dtype=torch.float64)
    if "start" in drawn:
        fields["frame"] = reflected(case, x, drawn["start"])
    if "s" in drawn:
        matrix = p.shear(drawn["s"].double(), "hiclr")
    if "u_flip" in drawn:
        fields["order"] = swapped(drawn["u_flip"] < 0.5)
    if "deg" in drawn:
        matrix = p.rotation(drawn["deg"].double().deg2rad()) @ matrix
    kept = torch.ones(len(x), 3, dtype=torch.float64)
    if "u_axis" in drawn:
        kept = masked(drawn["axis"], drawn["u_axis"] < 0.5).double()
    fields["affine"] = linear((kept[:, :, None] * matrix).expand(len(x), 3, 3))
    if "u_noise" in drawn:
        noisy = (drawn["u_noise"] < 0.5)[:, None] * kept
        fields["noise"] = drawn["noise"] * noisy[:, :, None, None, None]
    if "sigma" in drawn:
        fields["blur"] = p.gaussian_taps(drawn["sigma"], drawn["u_blur"] < 0.5)
    return fields


@replays("JHang2020/HiCLR", "NTUMotionProcessor")
def preprocess(case: Case) -> Replay:
    options = Options(case.kwargs)
    relative = {"normal": False, "relative": True}[options.take("data_type", "normal")]
    resized = {"force_crop": False, "resize": True}[options.take("sampling", "force_crop")]
    turn = options.take("y_rotation", False)
    T = min(options.take("t_length", 300), 300)
    options.expect(displacement=(False, 0, 1))
    if case.kwargs.get("displacement", False) > len(case.meta["output_names"]) - 1:
        raise NotUnderstood("a displacement that is not recorded")

    def call(x: Tensor, length: Tensor | None = None) -> list[Tensor]:
        n = x.shape[1] if length is None else int(length)
        clip = x.cpu().permute(1, 3, 2, 0)[: n if resized else T].numpy()
        found = normalize.hiclr(clip, "ntu25", T if resized else None, relative, turn)
        position = torch.from_numpy(found).permute(3, 0, 2, 1).to(x)
        # Motion is that of the recording: not relative, not rotated.
        plan = still(x[None])
        if resized:
            frame, blend = p.resize(torch.tensor([0]), torch.tensor([n]), T)
            plan = replace(plan, frame=frame, blend=blend)
        else:
            plan = replace(plan, frame=plan.frame[:, :T])
        streams = make_streams("joint_motion", NTU, native_motion=True)
        found = [position, sample(x[None], plan, streams)[0]]
        return found[: len(case.meta["output_names"])]

    return Replay(call)


@replays("JHang2020/HiCLR", "Jointmask")
@replays("JHang2020/HiCLR", "Jointmask2")
def joint_mask(case: Case) -> Replay:
    """Joints of every frame, or one row of them for all frames."""
    T, V = case.arrays[f"out.{case.meta['output_names'][0]}"].shape[-2:]

    def call(joints: Tensor) -> Tensor:
        joints = joints.reshape(-1, joints.shape[-1]).expand(T, -1)
        return torch.ones(T, V, device=joints.device).scatter(1, joints, 0.0)

    return Replay(call)


@replays("JHang2020/HiCLR", "TemporalMask")
def frame_mask(case: Case) -> Replay:
    """Frames whose place in the drawn order is not among the first."""
    name = case.meta["output_names"][0]
    shape = case.arrays[f"out.{name}"].shape

    def call(order: Tensor) -> Tensor:
        kept = order < len(order) * (1 - case.kwargs["mask_ratio"])
        return kept.float()[:, None].expand(-1, shape[-1]) if len(shape) == 2 else kept.float()

    return Replay(call)


# ---- anshulbshah/HaLP ---------------------------------------------------------------------------


def cropped(case: Case, x: Tensor, frames: Tensor, u: Tensor, start: Tensor, out: int) -> ClipPlan:
    low, high = case.kwargs["l_ratio"]
    shortest = case.kwargs.get("min_crop_length", 64)
    size = p.crop_size(low + (high - low) * u.cpu(), frames.cpu().clamp(max=300), shortest)
    frame, blend = p.resize(start.cpu(), size, out)
    return replace(still(x), frame=frame, blend=blend)


@replays("anshulbshah/HaLP", "temporal_cropresize")
@replays("anshulbshah/HaLP", "crop_subsequence")
def halp_crop(case: Case) -> Replay:
    out, low = case.kwargs.get("output_size", 64), case.kwargs["l_ratio"][0]

    def call(x: Tensor, frames: Tensor, *draws: Tensor) -> Tensor:
        if case.kind == "crop_subsequence" and low != 0.5:  # published: a test
            frame, blend = p.resize(*p.central_crop(frames.cpu(), low), out)
            return sample(x, replace(still(x), frame=frame, blend=blend))
        return sample(x, cropped(case, x, frames, *draws, out))

    return Replay(call)


@replays("anshulbshah/HaLP", "pose_augmentation")
def halp_shear(case: Case) -> Replay:
    def call(x: Tensor, s: Tensor) -> Tensor:
        return sample(x, replace(still(x), affine=linear(p.shear(s.cpu(), "halp"))))

    return Replay(call)


def corruption(u: Tensor, joints: Tensor, matrix: Tensor, applied: Tensor, num_joints: int) -> dict:
    mixed = torch.where((u < 0.5)[:, None, None], torch.zeros_like(matrix), matrix.mT)
    eye = torch.eye(3, dtype=matrix.dtype).expand_as(matrix)
    return {
        "branch": p.joint_flags(joints, applied, num_joints, CORRUPT),
        "affine": p.two_branches(p.homogeneous(eye), p.homogeneous(mixed)),
    }


@replays("anshulbshah/HaLP", "joint_courruption")
def halp_corruption(case: Case) -> Replay:
    def call(x: Tensor, u: Tensor, joints: Tensor, matrix: Tensor) -> Tensor:
        u, joints, matrix = u.cpu(), joints.cpu(), matrix.cpu()
        fields = corruption(u, joints, matrix, torch.ones(len(u), dtype=torch.bool), x.shape[3])
        return sample(x, replace(still(x), **fields))

    return Replay(call)


@replays("anshulbshah/HaLP", "view")
@replays("anshulbshah/HaLP", "halp view")
def halp_view(case: Case) -> Replay:
    def call(x, frames, u_scale, start, u_branch, u_corrupt, joints, matrix, s) -> Tensor:
        corrupt = u_branch.cpu() < 0.5
        fields = corruption(u_corrupt.cpu(), joints.cpu(), matrix.cpu(), corrupt, x.shape[3])
        sheared = linear(p.shear(s.cpu(), "halp"), ~corrupt)
        fields["affine"] = torch.stack([sheared[:, 0], fields["affine"][:, 1]], dim=1)
        plan = cropped(case, x, frames, u_scale, start, case.kwargs["input_size"])
        return sample(x, replace(plan, **fields))

    return Replay(call)


@replays("anshulbshah/HaLP", "pre_normalization")
def halp_normalization(case: Case) -> Replay:
    axes = (case.kwargs.get("zaxis", [0, 1]), case.kwargs.get("xaxis", [8, 4]))
    if axes != ([0, 1], [8, 4]):
        raise NotUnderstood(f"pre_normalization with {case.kwargs}")

    def call(x: Tensor) -> Tensor:
        clips = [normalize.halp(clip.numpy(), "ntu25") for clip in x.cpu().permute(BATCH)]
        return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 3, 2).to(x)

    return Replay(call)


# ---- firework8/ACLNet, firework8/BRL ------------------------------------------------------------


POSES = ("firework8/ACLNet", "firework8/BRL", "kennymckormick/pyskl")
DATASETS = {
    "nturgb+d": "ntu25",
    "nw_ucla": "nw_ucla20",
    "coco": "coco17",
    "coco_new": "coco20",
    "openpose": "openpose18",
}
STREAMS = {"j": "joint", "b": "bone", "k": "skip"}


def of_poses(kind: str) -> Callable:
    """Register a transform that ACLNet, BRL and PYSKL share."""

    def add(build: Callable[[Case], Replay]) -> Callable[[Case], Replay]:
        for repository in POSES:
            replays(repository, kind)(build)
        return build

    return add


def dataset_of(options: Options) -> str:
    return DATASETS[options.take("dataset", "nturgb+d")]


@of_poses("GenSkeFeat")
def modalities(case: Case) -> Replay:
    options = Options(case.kwargs)
    layout = dataset_of(options)
    options.expect(feats=(), axis=())
    outputs = case.meta["output_names"]
    kinds, motion = [name[0] for name in outputs], ["m" * name[1:].count("m") for name in outputs]
    other = get_layout(layout).num_joints != case.arrays["in.x"].shape[2]
    if layout == "openpose18":  # of which PYSKL's bones are those of the layout
        other = other or "k" in kinds or case.repository == "firework8/ACLNet"
    if other or not set(kinds) <= set(STREAMS):
        raise NotUnderstood(f"GenSkeFeat of {layout} with {outputs}")
    names = [STREAMS[kind] + "_motion" * len(m) for kind, m in zip(kinds, motion, strict=True)]
    streams = make_streams(names, layout)
    # The last channel of poses in images is a score, of which bones and motion take the mean.
    scored = layout not in ("ntu25", "nw_ucla20") and case.arrays["in.x"].shape[-1] == 3
    if scored:
        means, moving = ("b", 0) if layout == "coco20" else ("bk", MOTION_MEAN)
        bones = [SCORE_MEAN * (kind in means) for kind in kinds]
        added = [bone + moving * len(m) for bone, m in zip(bones, motion, strict=True)]
        given = zip(streams.kinds, added, strict=True)
        streams = replace(streams, kinds=tuple(a + b for a, b in given))

    def call(x: Tensor) -> list[Tensor]:
        clip = x[None].permute(PYSKL).contiguous()
        plan = still(clip[:, :2] if scored else clip)
        y = sample(clip, plan, streams).unflatten(1, (len(names), -1))[0]
        return [stream.permute(3, 1, 2, 0) for stream in y]

    return Replay(call)


@replays("firework8/ACLNet", "Kinetics_Transform")
def three_more_joints(case: Case) -> Replay:
    Options(case.kwargs).expect(dataset=("coco_new",))
    index, weight = conversion("coco17", "coco20")

    def call(x: Tensor, score: Tensor | None = None) -> Tensor:
        x = x if score is None else torch.cat([x, score[..., None]], dim=-1)
        return (x[..., index.to(x.device), :] * weight.to(x)[..., None]).sum(-2)

    return Replay(call)


def transformed(case: Case, fields: Callable[..., dict]) -> Replay:
    """``fields(clips, *draws) -> changes of the plan``, of clips (N, M, T, V, C) or of one."""

    def call(x: Tensor, *draws: Tensor) -> Tensor:
        batch = x if x.dim() == 5 else x[None]
        clips = batch.permute(PYSKL).contiguous()
        drawn = [draw.cpu().reshape(len(clips), -1) for draw in draws]
        y = sample(clips, replace(still(clips), **fields(clips, *drawn))).permute(PYSKL)
        return y if x.dim() == 5 else y[0]

    return Replay(call)


@of_poses("RandomRot")
def pose_rotation(case: Case) -> Replay:
    def fields(clips: Tensor, angles: Tensor) -> dict:
        flat = clips.shape[1] == 2
        return {"affine": linear(p.rotation_2d(angles[:, 0]) if flat else p.rotation(angles))}

    return transformed(case, fields)


@of_poses("RandomScale")
def pose_scale(case: Case) -> Replay:
    """The case has the factors, or what they are drawn from, within [-1, 1]."""
    options = Options(case.kwargs)
    scale = torch.as_tensor(options.take("scale", 0.2), dtype=torch.float64)
    options.expect()
    factors = any("scale" in name or "factor" in name for name in case.meta["input_names"][1:])

    def fields(_: Tensor, drawn: Tensor) -> dict:
        return {"affine": linear(torch.diag_embed(drawn if factors else 1 + drawn * scale))}

    return transformed(case, fields)


@of_poses("Spatial_Flip")
def pose_flip(case: Case) -> Replay:
    options = Options(case.kwargs)
    mirror = torch.tensor(get_layout(dataset_of(options)).mirror)
    rate = options.take("p", 0.5)
    options.expect()

    def fields(_: Tensor, u: Tensor) -> dict:
        return {"order": torch.where(u < rate, mirror, torch.arange(len(mirror)))}

    return transformed(case, fields)


@replays("firework8/ACLNet", "Part_Drop")
def part_drop(case: Case) -> Replay:
    member = torch.zeros(len(LIMBS), NTU.num_joints, dtype=torch.uint8)
    for row, limb in zip(member, LIMBS, strict=True):
        row[list(NTU.parts[limb])] = DROP

    def call(x: Tensor, u: Tensor, part: Tensor) -> Tensor:
        clips = x.permute(PYSKL).contiguous()
        branch = member[part.cpu()] * (u.cpu() < case.kwargs["p"])[:, None]
        return sample(clips, replace(still(clips), branch=branch)).permute(PYSKL)

    return Replay(call)


@of_poses("PreNormalize3D")
def prenormalize(case: Case) -> Replay:
    options = Options(case.kwargs)
    spine = options.take("align_spine", True)
    options.expect(zaxis=([0, 1],), xaxis=([8, 4],), align_center=(True,))
    if any(x.shape[2] != NTU.num_joints for x in case.group("in").values()):
        raise NotUnderstood("PreNormalize3D of other joints than those of NTU RGB+D")

    def call(*clips: Tensor) -> list[Tensor]:
        done = []
        for x in clips:
            clip = x.cpu().transpose(0, 1).numpy()
            found = normalize.pyskl(clip, "ntu25", align_spine=spine)
            done.append(torch.from_numpy(found).transpose(0, 1).to(x))
        return done

    return Replay(call)


@replays("firework8/ACLNet", "UniformSampleDecode")
def uniform_decode(case: Case) -> Replay:
    T = case.kwargs["clip_len"]

    def call(short, start, middle, gaps, long, offset) -> tuple[Tensor, ...]:
        chosen = torch.zeros(1, T + 1, dtype=torch.bool)
        chosen[0, gaps.cpu()] = True
        return (
            p.loop(start.view(1).cpu(), short.view(1).cpu(), T)[0],
            p.skip_gaps(chosen, T)[0],
            p.one_per_bin(offset[None].cpu(), long.view(1).cpu())[0],
        )

    return Replay(call)


@replays("firework8/BRL", "UniformSampleFrames")
@replays("kennymckormick/pyskl", "UniformSampleFrames")
def brl_uniform(case: Case) -> Replay:
    T, clips = case.kwargs["clip_len"], case.kwargs["num_clips"]

    def drawn(length: int) -> Tensor:
        return legacy_uniform_frames(length, T, whole_clip(np.random.RandomState(length)))

    def call(_: Tensor) -> list[Tensor]:
        found = []
        for name in case.meta["output_names"]:
            mode, length = name.split("_")
            test = uniform_test_frames(int(length), T, clips).flatten()
            found.append(drawn(int(length)) if mode == "train" else test)
        return found

    return Replay(call)


@replays("ahmed-nady/Multimodal-Action-Recognition", "UniformSampleFrames")
def epam_uniform(case: Case) -> Replay:
    options = Options(case.kwargs)
    T, seed = options.take("clip_len"), options.take("seed", 255)
    clips = options.take("num_clips", 1)
    options.expect(test_mode=(True,))

    def drawn(n: int) -> Tensor:
        random = np.random.RandomState(seed)
        starts = [i if n < clips else i * n // clips for i in range(clips)]
        return torch.cat([legacy_uniform_frames(n, T, random, start) for start in starts])

    def call(lengths: Tensor) -> Tensor:
        return torch.stack([drawn(n) for n in lengths.tolist()])

    return Replay(call)


# ---- The CTR-GCN line: Hyper-GCN, PSUMNet, MAMP -------------------------------------------------


def window(x: Tensor, length: int, share: Tensor | None, start: Tensor | None, p_interval, T: int) \
        -> Tensor:  # fmt: skip
    """The crop of a clip (C, T, V, M), resampled."""
    n = torch.tensor([length])
    if len(p_interval) == 1:
        start, size = p.central_crop(n, p_interval[0])
    else:
        low, high = p_interval
        size = p.crop_size(low + (high - low) * share.cpu().double().view(1), n, 64)
        start = start.cpu().view(1)
    frame, blend = p.resize(start, size, T)
    return sample(x[None], replace(still(x[None]), frame=frame, blend=blend))[0]


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """A clip (C, T, V, M), rotated."""
    affine = linear(p.rotation(angles.cpu().view(1, 3)))
    return sample(x[None], replace(still(x[None]), affine=affine))[0]


@replays("6UOOON9/Hyper-GCN", "valid_crop_resize")
@replays("Uason-Chen/CTR-GCN", "valid_crop_resize")
@replays("skelemoa/psumnet", "valid_crop_resize")
def crop_resize(case: Case) -> Replay:
    kwargs = case.kwargs

    def call(x: Tensor, share: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        length = kwargs["valid_frame_num"]
        return window(x, length, share, start, kwargs["p_interval"], kwargs["window"])

    return Replay(call)


@replays("6UOOON9/Hyper-GCN", "random_rot")
@replays("Uason-Chen/CTR-GCN", "random_rot")
@replays("skelemoa/psumnet", "random_rot")
def random_rot(case: Case) -> Replay:
    return Replay(turned)


@replays("maoyunyao/MAMP", "Wrap", "random_rot")
def mamp_feeder(case: Case) -> Replay:
    kwargs = case.kwargs

    def call(x: Tensor, u: Tensor, start: Tensor, angles: Tensor) -> tuple[Tensor, ...]:
        length, T = kwargs["valid_frames"], kwargs["window"]
        train = window(x, length, u, start, kwargs["train_p"], T)
        test = window(x, length, None, None, kwargs["test_p"], T)
        return test, train, turned(train, angles)

    return Replay(call)


@replays("6UOOON9/Hyper-GCN", "align")
def hyper_align(case: Case) -> Replay:
    def call(x: Tensor) -> Tensor:
        pose = x[:, 0, :, 0].T.cpu().double()
        turn = turn_onto((pose[8] - pose[4])[None], 0)
        return sample(x[None], replace(still(x[None]), affine=linear(turn)))[0]

    return Replay(call)


@replays("6UOOON9/Hyper-GCN", "get_clips")
def get_clips(case: Case) -> Replay:
    T = case.kwargs["clip_len"]

    def call(lengths: Tensor) -> Tensor:
        rows = [legacy_uniform_frames(n, T, np.random.RandomState(n)) for n in lengths.tolist()]
        return torch.stack(rows)

    return Replay(call)


@replays("6UOOON9/Hyper-GCN", "feeders/feeder_ntu.py")
def hyper_modality(case: Case) -> Replay:
    name = ("bone" if case.kwargs["bone"] else "joint") + "_motion" * case.kwargs["vel"]
    streams = get_transform("hyper_gcn").streams(name, NTU)
    return Replay(lambda x: sample(x[None], streams=streams)[0])


def psumnet_streams(layout: str, part: str) -> Streams:
    names = ("joint", "bone", "joint_motion", "bone_motion")
    return make_streams(names, layout, part=part)


@replays("skelemoa/psumnet", "feeders/feeder_ntu.py")
@replays("skelemoa/psumnet", "feeders/feeder_ntu_x.py")
def psumnet_features(case: Case) -> Replay:
    layout = "ntu_x67" if case.kind.endswith("ntu_x.py") else "ntu25"
    streams = psumnet_streams(layout, case.kwargs["stream"])
    return Replay(lambda x: sample(x[None], streams=streams)[0])


@replays("skelemoa/psumnet", "feeders/feeder_shrec.py")
def psumnet_gestures(case: Case) -> Replay:
    streams = psumnet_streams("shrec22", "hand")
    T = case.arrays["out.y"].shape[1]

    def call(x: Tensor) -> Tensor:
        frame = torch.arange(T)
        plan = replace(still(x[None]), frame=torch.where(frame < x.shape[1], frame, -1)[None])
        return sample(x[None], plan, streams)[0]

    return Replay(call)


# ---- 3Dwe-ai/ms-clr -----------------------------------------------------------------------------


@replays("3Dwe-ai/ms-clr", "transform_order")
def flip_orders(case: Case) -> Replay:
    # As published, the hands of smpl_24 keep their places.
    smpl = (*get_layout("smpl24").mirror[:22], 22, 23)
    orders = {"ntu": NTU.mirror, "smpl_24": smpl}
    orders |= {f"{n}_{v}": get_layout(f"{n}{v}").mirror
               for n, v in (("smplx", 42), ("berkeley_mhad", 43))}  # fmt: skip
    return Replay(lambda: [torch.tensor(orders[name]) for name in case.meta["output_names"]])
