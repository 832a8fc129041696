"""What each augmentation does to clips, how often, and what it leaves alone."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skelops.data import TRANSFORMS, ClipDataset, Clips, ClipTransform, get_transform, synthetic
from skelops.data.transform import (
    VIEW_STREAMS,
    Geometry,
    _Stream,
    alignment,
    first_frames,
    middle,
    turn_onto,
    uniform_frames,
    uniform_test_frames,
)
from skelops.graph import get_layout

NTU = get_layout("ntu25")
PARENTS = list(NTU.parents)
FRAMES = {"posec3d": 48, "nw_ucla": 52, "pyskl": 100, "pyskl_2d": 100, "aclnet": 100, "mamp": 120}
DRAWS = 24 * 20
HALF = (0.42, 0.58)  # an even chance in DRAWS tosses


@pytest.fixture(scope="module")
def clips():
    return synthetic.generate(24)


@pytest.fixture(scope="module")
def short():
    """24 clips of at least 12 frames with a person who is gone now and then, and coordinates in
    units that make every mistake visible."""
    rng = np.random.default_rng(0)
    length = np.arange(12, 36)
    xyz = rng.normal(5, 1, (length.sum(), 2, 25, 3)).astype(np.float32)
    xyz[rng.random(len(xyz)) < 0.2, 1] = 0
    return Clips(xyz, length, np.zeros(24, int), ("all",), "ntu25")


def samples(clips, draws=DRAWS, streams="joint", *, seed=0, train=True, **changes):
    """(N, C, T, V, M)"""
    options = {"frames": 12, "shortest": 12, "center": False} | changes
    data = ClipDataset(clips, ClipTransform(**options), streams, train=train, seed=seed)
    return data.__getitems__(range(draws)).x


def plan(clips, transform, draws=DRAWS):
    geometry = Geometry.of(clips, transform)
    draw = torch.arange(draws)
    return transform.plan(geometry, draw % len(clips), draw, train=True)


def bone_lengths(x):
    return (x - x[:, :, :, PARENTS]).norm(dim=1)


def share(flags):
    return flags.double().mean().item()


def changed(x, y):
    """(N,) bool"""
    return (x != y).flatten(1).any(1)


# Published transforms


@pytest.mark.parametrize("name", TRANSFORMS)
def test_published_transforms_run(clips, name):
    transform = get_transform(name)
    names = ["joint", "bone"] if transform.noise else ["joint", "bone", "joint_motion"]
    T = FRAMES.get(name, 50 if "hiclr" in name else 64)
    train = ClipDataset(clips, name, names, train=True)
    x = train.__getitems__(range(48)).x
    assert x.shape == (48, 3 * len(names), T, 25, 2) and x.isfinite().all()
    assert changed(x[:24], x[24:]).all()  # the next epoch draws anew
    test = ClipDataset(clips, name, names)
    assert len(test) == 24 * transform.num_clips
    y = test.__getitems__(range(24)).x
    assert y.shape[1:] == x.shape[1:] and torch.equal(y, test.__getitems__(range(24)).x)
    assert torch.equal(y, ClipDataset(clips, name, names, seed=1).__getitems__(range(24)).x)


def test_published_settings():
    ctr = TRANSFORMS["ctr_gcn"]
    assert (ctr.frames, ctr.share, ctr.shortest, ctr.test_share) == (64, (0.5, 1.0), 64, 0.95)
    assert ctr.rotation == 0.3 and ctr.center is True and not ctr.align
    assert TRANSFORMS["halp"].share == (0.1, 1.0) and TRANSFORMS["halp"].corrupt == 15
    strong = TRANSFORMS["hiclr_strong"]
    assert (strong.shear, strong.padding_ratio, strong.blur_size) == (0.5, 6, 15)
    assert {name for name, t in TRANSFORMS.items() if t.num_clips == 10} == {
        name for name, t in TRANSFORMS.items() if t.sampling == "uniform"
    }


def test_a_transform_by_name_and_changed():
    other = get_transform("ctr_gcn", frames=32, rotation=0.0)
    assert other == ClipTransform(frames=32) and get_transform(other) == other
    assert get_transform(other, flip=0.5).flip == 0.5


# Points


def test_rotation_keeps_bone_lengths_and_shear_and_scale_do_not(short):
    plain, turned = samples(short), samples(short, rotation=0.5)
    torch.testing.assert_close(bone_lengths(turned), bone_lengths(plain), rtol=1e-4, atol=1e-5)
    assert changed(plain, turned).all()
    for other in ({"shear": 0.5}, {"scale": 0.1}):
        difference = bone_lengths(samples(short, **other)) - bone_lengths(plain)
        assert (difference.flatten(1).abs().amax(1) > 0.01).all()


def test_angles_of_rotation_are_uniform_in_both_directions(short):
    bound = (0.3, 0.2, 0.1)
    R = plan(short, ClipTransform(rotation=bound, center=False)).affine[:, 0, :, :3].double()
    # R = Rz Ry Rx with sin(y) = R[2, 0], tan(x) = -R[2, 1] / R[2, 2], tan(z) = -R[1, 0] / R[0, 0]
    angles = torch.stack([torch.atan2(-R[:, 2, 1], R[:, 2, 2]), R[:, 2, 0].asin(),
                          torch.atan2(-R[:, 1, 0], R[:, 0, 0])], 1)  # fmt: skip
    u = angles / torch.tensor(bound)
    assert (u.abs() <= 1 + 1e-5).all() and (u.amax(0) > 0.97).all() and (u.amin(0) < -0.97).all()
    assert (u.mean(0).abs() < 0.1).all() and (u.var(0) - 1 / 3).abs().max() < 0.05
    assert (torch.corrcoef(u.T) - torch.eye(3)).abs().max() < 0.15


def test_tilt_turns_one_axis_much_and_the_others_little(short):
    R = plan(short, ClipTransform(tilt=(30.0, 1.0), center=False)).affine[:, 0, :, :3].double()
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand_as(R), rtol=0, atol=1e-5)
    degrees = torch.stack([torch.atan2(-R[:, 2, 1], R[:, 2, 2]), R[:, 2, 0].asin(),
                           torch.atan2(-R[:, 1, 0], R[:, 0, 0])], 1).rad2deg()  # fmt: skip
    assert degrees.min() > -1e-3 and 29 < degrees.max() < 30  # one-sided, as published
    main = degrees.argmax(1)[degrees.amax(1) > 1]
    assert (torch.bincount(main, minlength=3) > DRAWS / 4).all()
    assert degrees.sort(1).values[:, :2].max() < 1.001


def test_in_the_plane_clips_turn_about_their_only_axis(short):
    flat = Clips(short.xyz[..., :2], short.length, short.label, ("all",), "ntu25")
    plain, turned = samples(flat), samples(flat, rotation=0.4)
    torch.testing.assert_close(bone_lengths(turned), bone_lengths(plain), rtol=1e-4, atol=1e-5)
    R = plan(flat, ClipTransform(rotation=0.4, center=False)).affine[:, 0, :, :2]
    angle = torch.atan2(R[:, 1, 0], R[:, 0, 0])
    assert angle.max() < 0.4 and angle.min() > -0.4 and angle.std() > 0.2


def test_scale_of_each_axis(short):
    ratio = (samples(short, scale=0.2) / samples(short))[..., 0]
    factor = ratio.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ratio, factor.expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert 0.8 <= factor.min() < 0.82 and 1.18 < factor.max() <= 1.2
    assert changed(factor[:, 0], factor[:, 1]).all()


def test_translation_leaves_missing_persons_at_zero(short):
    whole = {"sampling": "window"}  # between a frame with and one without a person, half the shift
    plain, moved = samples(short, **whole), samples(short, shift=2.0, **whole)
    seen = (plain != 0).any(1, keepdim=True).expand_as(plain)
    assert not seen.all() and not moved[~seen].any()
    step = (moved - plain)[:, :, :1, :1, :1]
    torch.testing.assert_close((moved - plain)[seen], step.expand_as(plain)[seen])
    assert step.abs().max() < 2 and step.std() > 1


def test_shear_entries(short):
    R = plan(short, ClipTransform(shear=0.5, center=False)).affine[:, 0, :, :3]
    entries = R[:, ~torch.eye(3, dtype=torch.bool)]
    assert torch.equal(R.diagonal(dim1=1, dim2=2), torch.ones(DRAWS, 3))
    assert entries.abs().max() < 0.5 and (entries.var(0) - 1 / 12).abs().max() < 0.02
    assert (torch.corrcoef(entries.T) - torch.eye(6)).abs().max() < 0.15


@pytest.mark.parametrize("mirror", [False, True])
def test_flip_swaps_the_limbs(short, mirror):
    plain, flipped = samples(short), samples(short, flip=0.5, mirror=mirror)
    swapped = plain[:, :, :, list(NTU.mirror)]
    if mirror:
        swapped = swapped * torch.tensor([-1.0, 1, 1]).view(3, 1, 1, 1)
    done = changed(plain, flipped)
    assert HALF[0] < share(done) < HALF[1]
    assert torch.equal(flipped, torch.where(done[:, None, None, None, None], swapped, plain))
    assert NTU.mirror[4] == 8 and NTU.mirror[19] == 15 and NTU.mirror[3] == 3


@pytest.mark.parametrize(
    "severity, lost", [("minor", 3), ("moderate", 6), ("severe", 9), (1.0, 11)]
)
def test_missing_frames(short, severity, lost):
    for train in (True, False):
        whole = samples(short, 24, train=train)
        x = samples(short, 24, train=train, missing=severity)
        empty = ~x[..., 0].any(1).any(2)
        assert (empty.sum(1) == lost).all() and changed(empty, empty.roll(1, 0)).any()
        kept = ~empty[:, None, :, None, None].expand_as(x)
        assert torch.equal(x[kept], whole[kept])
    other = samples(short, 24, train=False, missing=severity, seed=1)
    assert torch.equal(other, x)  # the test protocol is one
    other = samples(short, 24, train=False, missing=severity, missing_seed=1)
    kept = other[..., 0].any(1).any(2)
    assert (kept.sum(1) == 12 - lost).all() and not torch.equal(kept, x[..., 0].any(1).any(2))


def test_frames_missing_once(short):
    def kept(**options):  # of the clips in two epochs
        options |= {"sampling": "window", "missing": "severe"}
        return samples(short, 2 * len(short), **options)[..., 0].any(1).any(2).chunk(2)

    first, second = kept(missing_once=True), kept(missing_once=True, seed=1)
    assert torch.equal(*first) and torch.equal(*second) and not torch.equal(first[0], second[0])
    assert changed(first[0], first[0].roll(1, 0)).any()
    assert not torch.equal(*kept())


def test_gaps(short):
    frame = torch.arange(12)
    kept = {
        "regular": frame % 4 == 0,
        "prefix": frame >= 9,
        "suffix": frame < 3,
        "middle": (frame < 1) | (frame >= 10),
    }
    whole = samples(short, 24, sampling="window")[..., 0].any(1).any(2)
    for gaps, left in kept.items():
        x = samples(short, 24, sampling="window", missing="severe", gaps=gaps)
        assert torch.equal(x[..., 0].any(1).any(2), whole & left)
    x = samples(short, 24, sampling="window", missing="severe", gaps="any")[..., 0].any(1).any(2)
    shares = [(x == left).all(1).double().mean().item() for left in kept.values()]
    assert all(0 < share < 0.4 for share in shares) and sum(shares) < 1  # the rest is random
    assert (x.sum(1) == 3).all()


def test_missing_frames_that_make_no_sense():
    for missing in ("awful", 1.5, -0.1):
        with pytest.raises(ValueError, match="ClipTransform: expected missing"):
            ClipTransform(missing=missing)
    with pytest.raises(ValueError, match=r"ClipTransform: expected gaps in .*, got 'odd'"):
        ClipTransform(missing="minor", gaps="odd")
    with pytest.raises(ValueError, match="expected missing frames without noise and blur"):
        ClipTransform(missing="minor", noise=0.1)


def test_time_flip_reverses_the_frames(short):
    plain, flipped = samples(short), samples(short, time_flip=0.5)
    done = changed(plain, flipped)
    assert HALF[0] < share(done) < HALF[1]
    torch.testing.assert_close(flipped[done], plain[done].flip(2))


def test_axis_mask_zeroes_an_axis_of_half_of_the_samples(short):
    plain = samples(short)
    masked = samples(short, axis_mask=0.5, shift=1.0, noise=0.1, noise_p=1.0)
    gone = ~masked.flatten(2).any(2)
    assert gone.sum(1).max() == 1 and HALF[0] < share(gone.any(1)) < HALF[1]
    assert (gone.double().mean(0) > 0.1).all()
    only = samples(short, axis_mask=0.5)
    assert torch.equal(only, plain.masked_fill(gone[:, :, None, None, None], 0))


def test_noise_reaches_missing_persons_too(short):
    difference = samples(short, noise=0.1) - samples(short)
    done = difference.flatten(1).any(1)
    assert HALF[0] < share(done) < HALF[1]
    assert abs(difference[done].std() - 0.1) < 0.002
    missing = (samples(short) == 0).all(1, keepdim=True)[done].expand_as(difference[done])
    assert abs(difference[done][missing].std() - 0.1) < 0.002
    assert changed(difference[done][:-1], difference[done][1:]).all()


def test_blur_is_a_gaussian_over_the_frames_of_the_sample(short):
    plain = samples(short)
    blurred = samples(short, blur=(2.0, 2.0), blur_size=5)
    done = changed(plain, blurred)
    assert HALF[0] < share(done) < HALF[1]
    taps = (-(torch.arange(-2.0, 3) ** 2) / 8).exp()
    lanes = plain[done].movedim(2, -1).reshape(-1, 1, 12)
    expected = torch.nn.functional.conv1d(lanes, taps[None, None], padding=2)
    expected = expected.view(plain[done].movedim(2, -1).shape).movedim(-1, 2)
    torch.testing.assert_close(blurred[done], expected, rtol=1e-4, atol=1e-4)
    smooth = samples(short, blur=(0.1, 2.0), blur_p=1.0, blur_normalise=True)
    assert smooth[:, :, 6].abs().max() <= plain.abs().max()


def test_part_drop_takes_a_limb(short):
    plain, dropped = samples(short), samples(short, part_drop=0.5, shift=1.0)
    person = dropped[..., 0]
    gone = ~person.abs().sum((1, 2)).bool()  # (N, V)
    assert HALF[0] < share(gone.any(1)) < HALF[1]
    limbs = {tuple(sorted(joints)) for name, joints in NTU.parts.items() if name != "torso"}
    found = {tuple(row.nonzero().flatten().tolist()) for row in gone if row.any()}
    assert found == limbs and len(limbs) == 4
    assert plain.any()


def test_joint_drop_takes_each_joint_of_half_of_the_samples_with_probability_one_fifth(short):
    gone = ~samples(short, joint_drop=0.5)[..., 0].abs().sum((1, 2)).bool()
    assert HALF[0] < share(gone.any(1)) < HALF[1]
    assert 0.17 < share(gone[gone.any(1)]) < 0.23
    assert (gone.double().mean(0) > 0.04).all()


def test_halp_shears_or_corrupts(short):
    options = {"shear": 1.0, "shear_order": "halp", "corrupt": 15}
    plain, y = samples(short)[..., 0], samples(short, **options)[..., 0]
    same = (y == plain).all(1).all(1)  # (N, V)
    corrupted = same.any(1)
    assert HALF[0] < share(corrupted) < HALF[1]
    assert (same[corrupted].sum(1) == 10).all()  # the other 15 of 25 joints
    assert (same[corrupted].double().mean(0) - 0.4).abs().max() < 0.15
    zero = (~y[corrupted].any(1).any(1)).sum(1) == 15
    assert 0.35 < share(zero) < 0.65
    mixed = y[corrupted][~zero][0][:, :, ~same[corrupted][~zero][0]].flatten(1)
    source = plain[corrupted][~zero][0][:, :, ~same[corrupted][~zero][0]].flatten(1)
    matrix = mixed @ torch.linalg.pinv(source)
    torch.testing.assert_close(matrix @ source, mixed, rtol=1e-3, atol=1e-3)
    assert matrix.abs().max() <= 1 and (matrix - torch.eye(3)).abs().max() > 0.1
    alone = samples(short, corrupt=15)[..., 0]
    assert HALF[0] < share(changed(alone, plain)) < HALF[1]


def test_every_augmentation_has_draws_of_its_own(short):
    assert max(_Stream) < VIEW_STREAMS
    flipped = changed(samples(short), samples(short, flip=0.5))
    both = changed(samples(short, noise=0.1), samples(short, noise=0.1, flip=0.5))
    assert torch.equal(flipped, both)
    noisy = changed(samples(short), samples(short, noise=0.1))
    reversed_ = changed(samples(short), samples(short, time_flip=0.5))
    for a, b in ((flipped, noisy), (flipped, reversed_), (noisy, reversed_)):
        assert 0.15 < share(a & b) < 0.35
    assert not torch.equal(flipped, changed(samples(short, seed=1), samples(short, flip=0.5,
                                                                            seed=1)))  # fmt: skip


def test_test_samples_are_not_augmented(short):
    options = {"rotation": 1.0, "flip": 1.0, "noise": 1.0, "noise_p": 1.0, "part_drop": 1.0,
               "shear": 1.0, "blur": (1.0, 2.0), "axis_mask": 1.0}  # fmt: skip
    plain = samples(short, 24, train=False)
    assert torch.equal(samples(short, 24, train=False, **options), plain)


# Centring, alignment, unit box


def test_centring_puts_the_spine_of_the_first_pose_at_the_origin(short):
    xyz = short.xyz.copy()
    xyz[short.offset[3] : short.offset[3] + 4, 0] = 0  # clip 3 begins late
    xyz[short.offset[5] : short.offset[6], 0] = 0  # clip 5 without person 0
    late = Clips(xyz, short.length, short.label, ("all",), "ntu25")
    whole = {"sampling": "pad", "frames": 40, "train": False, "draws": 24}
    plain, y = samples(late, **whole), samples(late, center=True, **whole)
    first = torch.zeros(24, dtype=torch.int64)
    first[3] = 4
    origin = plain[torch.arange(24), :, first, 1, 0]
    assert not origin[5].any()
    torch.testing.assert_close(y[torch.arange(24), :, first, 1, 0], torch.zeros(24, 3))
    seen = (plain != 0).any(1, keepdim=True)
    torch.testing.assert_close(y, (plain - origin[:, :, None, None, None]) * seen)
    other = samples(late, center=4, **whole)
    torch.testing.assert_close(other[0, :, 0, 4, 0], torch.zeros(3))
    assert not torch.equal(other, y)


def test_the_middle_of_the_spine():
    assert middle(NTU) == 1 and middle(get_layout("nw_ucla20")) == 1
    assert get_layout("coco17").joint_names[middle(get_layout("coco17"))] == "nose"


def test_alignment_of_the_first_pose(clips):
    pose = torch.from_numpy(clips.xyz[clips.offset[:-1], 0]).double()
    R = alignment(pose, NTU)
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand_as(R))
    assert (torch.linalg.det(R) > 0).all()
    across = (R @ (pose[:, 8] - pose[:, 4])[..., None])[..., 0]
    assert (across[:, 0] > 0.1).all() and across[:, 1:].abs().max() < 1e-9
    spine = (R @ (pose[:, 1] - pose[:, 0])[..., None])[..., 0]
    assert (spine[:, 2] > 0.9 * spine.norm(dim=1)).all()  # up to the slope of the shoulders
    x = ClipDataset(clips, ClipTransform(align=True, sampling="pad")).__getitems__(range(24)).x
    shoulders = x[:, :, 0, 8, 0] - x[:, :, 0, 4, 0]
    torch.testing.assert_close(shoulders[:, 1:], torch.zeros(24, 2), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"a 3-D layout with a spine, got coco17"):
        alignment(pose[:, :17], get_layout("coco17"))


def test_turning_onto_an_axis():
    v = torch.tensor([[3.0, 0, 0], [0, 0, 0], [1, 2, -2], [0, -4, 0]]).double()
    turned = (turn_onto(v, 1) @ v[..., None])[..., 0]
    expected = torch.tensor([[0, 3.0, 0], [0, 0, 0], [0, 3, 0]]).double()
    torch.testing.assert_close(turned[:3], expected)
    assert torch.equal(turn_onto(v, 1)[1], torch.eye(3).double())
    assert torch.equal(turn_onto(torch.tensor([[0.0, 2, 0]]), 1)[0], torch.eye(3))


def test_unit_box_spans_all_frames(short):
    options = {"unit_box": True, "sampling": "pad", "frames": 40, "rotation": 1.0}
    for train in (True, False):
        x = samples(short, 24, train=train, **options)
        seen = (x != 0).any(1, keepdim=True).expand_as(x)
        low = x.masked_fill(~seen, torch.inf).amin((2, 3, 4))
        high = x.masked_fill(~seen, -torch.inf).amax((2, 3, 4))
        torch.testing.assert_close(low, -torch.ones(24, 3))
        torch.testing.assert_close(high, torch.ones(24, 3))


# Frames


def test_crops_are_of_the_published_sizes(clips):
    transform = ClipTransform(frames=4, share=(0.5, 1.0), shortest=30)
    found = plan(clips, transform)
    length = torch.from_numpy(clips.length)[torch.arange(DRAWS) % 24]
    step = (found.frame[:, 1] + found.blend[:, 1] - found.frame[:, 0] - found.blend[:, 0]) * 4
    assert (found.frame >= 0).all() and (found.frame < length[:, None]).all()
    size = step.round().long()
    assert (size >= (length // 2).clamp(min=30)).all() and (size <= length).all()
    room = length > 60
    u = (2 * size[room] / length[room] - 1).double()
    assert abs(u.mean() - 0.5) < 0.06 and abs(u.var() - 1 / 12) < 0.02
    begin = found.frame[:, 0] + found.blend[:, 0] - size / 8 + 0.5
    loose = length - size > 8
    place = (begin / (length - size))[loose]
    assert place.min() < 0.05 and place.max() > 0.95 and abs(place.mean() - 0.5) < 0.07


def test_sorted_frames_are_drawn_with_replacement(short):
    frame = plan(short, ClipTransform(sampling="sorted", frames=30, center=False)).frame
    length = torch.from_numpy(short.length)[torch.arange(DRAWS) % 24, None]
    assert (frame.diff(dim=1) >= 0).all() and (frame >= 0).all() and (frame < length).all()
    assert (frame.diff(dim=1) == 0).any(1).all()
    spread = frame / (length - 1)
    assert abs(spread.mean() - 0.5) < 0.02 and spread.min() == 0 and spread.max() == 1


@pytest.mark.parametrize("frames", [1, 2, 52, 64])
def test_sorted_frames_of_a_test_are_evenly_spaced(frames):
    length = torch.arange(1, 250)
    transform = ClipTransform(sampling="sorted", frames=frames)
    geometry = Geometry(0 * length, length, torch.eye(3, 4).expand(249, 3, 4), NTU)
    ids = torch.arange(249)
    found = transform.plan(geometry, ids, ids, train=False).frame
    for n, row in zip(length.tolist(), found.tolist(), strict=True):
        assert row == np.linspace(0, n - 1, frames).astype(int).tolist()


def test_a_window_is_consecutive_frames(short):
    transform = ClipTransform(sampling="window", frames=20, center=False)
    frame = plan(short, transform).frame
    length = torch.from_numpy(short.length)[torch.arange(DRAWS) % 24, None]
    expected = (frame[:, :1] + torch.arange(20)) % length
    assert torch.equal(frame, expected)
    assert not frame[:, 0][length[:, 0] <= 20].any()
    last = frame[:, 0] == length[:, 0] - 20
    assert (frame[:, 0][length[:, 0] > 20] == 0).any() and last[length[:, 0] > 22].any()
    data = ClipDataset(short, transform).__getitems__([20]).x  # 32 frames: 6 to 25
    torch.testing.assert_close(data[0, :, 0, :, 0].T, torch.from_numpy(short[20][6, 0]))


def test_reflection_shifts_the_resampled_clip(short):
    options = {"sampling": "reflect", "frames": 24, "padding_ratio": 6}
    still = samples(short, 24, train=False, **options)
    y = samples(short, **options)
    starts = set()
    for n in range(DRAWS):
        padded = torch.cat([still[n % 24][:, :4].flip(1), still[n % 24],
                            still[n % 24][:, -4:].flip(1)], dim=1)  # fmt: skip
        starts.add(next(s for s in range(9) if torch.allclose(y[n], padded[:, s : s + 24])))
    assert starts == set(range(9))


def test_padding_ends_with_empty_frames(short):
    x = samples(short, 24, train=False, sampling="pad", frames=20)
    for i in range(24):
        n = min(int(short.length[i]), 20)
        expected = torch.from_numpy(short[i][:n]).permute(3, 0, 2, 1)
        assert torch.equal(x[i, :, :n], expected) and not x[i, :, n:].any()
    assert first_frames(torch.tensor([2]), 4).tolist() == [[0, 1, -1, -1]]


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_uniform_frames(length, frames, data):
    seed = data.draw(st.integers(0, 2**32))
    u = torch.rand(8, frames + 1, generator=torch.Generator().manual_seed(seed))
    n = torch.full((8,), length)
    found = uniform_frames(n, frames, u)
    assert found.shape == (8, frames) and 0 <= found.min() <= found.max() < length
    if length < frames:
        assert torch.equal(found, (found[:, :1] + torch.arange(frames)) % length)
    else:
        assert (found.diff(dim=1) > 0).all()
    if frames <= length < 2 * frames:
        skipped = found - torch.arange(frames)
        assert skipped.max() <= length - frames
    if length >= 2 * frames:
        edges = n[:, None] * torch.arange(frames + 1) // frames
        assert (found >= edges[:, :-1]).all() and (found < edges[:, 1:]).all()
    for row in range(8):  # whatever the batch
        assert torch.equal(uniform_frames(n[:1], frames, u[row : row + 1])[0], found[row])


@pytest.mark.parametrize("length", [5, 13, 40])
def test_uniform_frames_miss_nothing(length):
    u = torch.rand(6000, 11)
    count = torch.bincount(uniform_frames(torch.full((6000,), length), 10, u).flatten())
    assert len(count) == length and count.min() > 0.85 * 60000 / length
    assert count.max() < 1.15 * 60000 / length


@pytest.mark.parametrize("length", [3, 15, 40, 100])
def test_uniform_frames_of_a_test(length):
    found = uniform_test_frames(length, 20, 10)
    assert found.shape == (10, 20) and 0 <= found.min() <= found.max() < length
    assert torch.equal(found, uniform_test_frames(length, 20, 10))
    if length < 20:
        starts = range(10) if length < 10 else [i * length // 10 for i in range(10)]
        assert found[:, 0].tolist() == [start % length for start in starts]
    else:
        assert (found.diff(dim=1) > 0).all() and len(found.unique(dim=0)) == 10


def test_ten_clips_are_the_ten_samples_of_a_test(short):
    transform = ClipTransform(sampling="uniform", frames=8, num_clips=10, center=False)
    x, _, clip = ClipDataset(short, transform).__getitems__(range(30, 40))
    assert clip.tolist() == [3] * 10
    frames = uniform_test_frames(int(short.length[3]), 8, 10)
    source = torch.from_numpy(short[3])
    assert torch.equal(x, source[frames].permute(0, 4, 1, 3, 2))


# Refusals


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampling": "all"}, "sampling in ('crop_resize', 'uniform', 'reflect', 'sorted', 'wi"),
        ({"frames": 0}, "frames >= 1, got 0"),
        ({"shortest": 0}, "shortest >= 1, got 0"),
        ({"padding_ratio": 0}, "padding_ratio >= 1, got 0"),
        ({"num_clips": 0}, "num_clips >= 1, got 0"),
        ({"share": (0.0, 1.0)}, "share with 0 < low <= high <= 1, got (0.0, 1.0)"),
        ({"share": (0.9, 0.5)}, "share with 0 < low <= high <= 1, got (0.9, 0.5)"),
        ({"share": (0.5, 1.1)}, "share with 0 < low <= high <= 1, got (0.5, 1.1)"),
        *(
            ({key: 1.5}, f"{key} in [0, 1], got 1.5")
            for key in (
                "flip", "time_flip", "axis_mask", "noise_p", "blur_p", "part_drop", "joint_drop",
                "test_share",
            )
        ),
        ({"flip": -0.1}, "flip in [0, 1], got -0.1"),
        *(
            ({key: -1}, f"{key} >= 0, got -1")
            for key in ("scale", "shift", "shear", "noise", "corrupt")
        ),
        ({"blur": (0.0, 2.0)}, "blur with 0 < low <= high, got (0.0, 2.0)"),
        ({"blur_size": 14}, "blur_size odd, got 14"),
        ({"shear_order": "cmd"}, "shear_order in ('hiclr', 'halp'), got 'cmd'"),
    ],
)  # fmt: skip
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=re.escape(f"ClipTransform: expected {message}")):
        ClipTransform(**options)


@pytest.mark.parametrize(
    "layout, dims, options, message",
    [
        ("coco17", 2, {"shear": 0.5, "tilt": (30, 1)}, "3-D clips for shear, tilt, got 2-D ones"),
        ("coco17", 2, {"align": True}, "3-D clips for align, got 2-D ones"),
        ("coco17", 2, {"corrupt": 3}, "3-D clips for corrupt, got 2-D ones"),
        ("coco17", 3, {"corrupt": 18}, "corrupt <= 17 joints of coco17, got 18"),
        ("coco17", 3, {"center": 17}, "center in 0..16 of coco17, got 17"),
        ("coco17", 3, {"center": -1}, "center in 0..16 of coco17, got -1"),
        ("smplx42", 3, {"part_drop": 0.2}, "a layout with parts for part_drop, got smplx42"),
    ],
)
def test_clips_that_a_transform_does_not_fit(layout, dims, options, message):
    V = get_layout(layout).num_joints
    clips = Clips(np.ones((3, 1, V, dims)), [3], [0], ("all",), layout)
    with pytest.raises(ValueError, match=re.escape(f"ClipTransform: expected {message}")):
        ClipDataset(clips, ClipTransform(**options))


@pytest.mark.parametrize(
    "options",
    [{"time_flip": 0.5}, {"noise": 0.1}, {"blur": (0.1, 2.0)}, {"unit_box": True}],
    ids=lambda options: next(iter(options)),
)
def test_motion_before_resampling_of_clips_that_change_after(options):
    transform = ClipTransform(native_motion=True, **options)
    assert len(transform.streams(["joint", "bone"], "ntu25")) == 2
    message = rf"ClipTransform: expected no native_motion with {next(iter(options))}, got \('joint_"
    with pytest.raises(ValueError, match=message):
        transform.streams("joint_motion", "ntu25")


def test_unknown_names():
    with pytest.raises(ValueError, match=r"get_transform: expected one of none, ctr_gcn, .*'ctr'"):
        get_transform("ctr")
    with pytest.raises(TypeError, match="rotate"):
        get_transform("ctr_gcn", rotate=0.3)


def test_places_of_persons():
    xyz = np.ones((6, 2, 25, 3), np.float32) * np.arange(1, 3)[:, None, None]
    xyz[:3, 1] = 0  # alone in the first clip
    clips = Clips(xyz, np.array([3, 3]), np.array([0, 0]), ("a",), "ntu25")
    shown = {
        (None, False): [[1, 0], [1, 2]],
        (None, True): [[1, 1], [1, 2]],
        (1, False): [[1], [1]],
        (3, False): [[1, 0, 0], [1, 2, 0]],
        (3, True): [[1, 1, 1], [1, 2, 1]],
    }
    for (persons, repeat), expected in shown.items():
        transform = ClipTransform(4, center=False, persons=persons, repeat_person=repeat)
        for train in (False, True):
            x = ClipDataset(clips, transform, train=train).__getitems__([0, 1]).x
            assert x[:, 0, 0, 0].tolist() == expected
    with pytest.raises(ValueError, match="persons >= 1, got 0"):
        ClipTransform(persons=0)
