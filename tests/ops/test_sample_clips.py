"""sample_clips: what the formula demands of it, and how it refuses."""

import re

import pytest
import torch

from skelops import sample_clips, use_backend
from skelops._backend import unavailable
from skelops._library import OPS
from skelops.ops.sample_clips import (
    ANGLE,
    CORRUPT,
    DROP,
    MOTION,
    MOTION_MEAN,
    NATIVE,
    SCORE_MEAN,
)
from skelops.testing.threads import threads

F, M, V, C, N, T = 12, 2, 5, 3, 2, 4
FULL = torch.tensor([[0, 6], [6, 12]])
FRAME = torch.tensor([[0, 2, 3, 5], [6, 6, 9, 11]])


def arguments(**changes):
    """Two clips of six frames, four frames each, as they are."""
    given = {
        "xyz": torch.randn(F, M, V, C),
        "bounds": FULL,
        "frame": FRAME,
        "blend": torch.zeros(N, T),
        "affine": torch.eye(3, 4).expand(N, 2, 3, 4),
        "parent": torch.full((1, V), -1),
        "kinds": [0],
    }
    return {**given, **changes}


def everything():
    """Every argument at once, for N clips."""
    return arguments(
        affine=torch.randn(N, 2, 3, 4),
        blend=torch.rand(N, T),
        parent=torch.tensor([[-1] * V, [1, 2, 3, 4, 0]]),
        kinds=[0, MOTION],
        person=torch.tensor([[1, 0, -1], [0, 0, 1]]),
        order=torch.tensor([[0, 2, 1, 4, 3], [4, 3, 2, 1, 0]]),
        branch=torch.tensor([[0, 1, 2, 0, 1], [1, 1, 0, 0, 2]], dtype=torch.uint8),
        blur=torch.rand(N, 3),
        noise_std=torch.rand(N, 3),
        draw=torch.tensor([11, 5]),
        seed=3,
    )


PER_SAMPLE = (
    "bounds", "frame", "blend", "affine", "person", "order", "branch", "blur", "noise_std", "draw",
)  # fmt: skip


def channels_first(x):
    """(N, T, M, V, C) to the layout of the result."""
    return x.permute(0, 4, 1, 3, 2)


def test_plain_samples_are_the_frames():
    given = arguments()
    assert torch.equal(sample_clips(**given), channels_first(given["xyz"][FRAME]))


def test_samples_do_not_depend_on_the_batch_or_the_threads():
    given = everything()
    both = sample_clips(**given)
    for rows in ([1], [1, 0, 1], [0, 0]):
        some = given | {key: given[key][rows] for key in PER_SAMPLE}
        assert torch.equal(sample_clips(**some), both[rows])
    many = given | {key: given[key].repeat(8, *[1] * (given[key].dim() - 1))
                    for key in PER_SAMPLE}  # fmt: skip
    with threads(3):
        assert torch.equal(sample_clips(**many), both.repeat(8, 1, 1, 1, 1))


def test_where_a_clip_lies_in_the_store_does_not_matter():
    given = everything()
    xyz = torch.cat([torch.full((7, M, V, C), torch.nan), given["xyz"]])
    moved = given | {"xyz": xyz, "bounds": FULL + 7, "frame": FRAME + 7}
    assert torch.equal(sample_clips(**moved), sample_clips(**given))


def test_blend_goes_to_the_next_frame_but_not_into_the_next_clip():
    given = arguments(blend=torch.tensor([[0.25] * T, [1.0] * T]))
    x = given["xyz"]
    following = torch.tensor([[1, 3, 4, 5], [7, 7, 10, 11]])
    expected = channels_first(torch.lerp(x[FRAME], x[following], given["blend"][..., None, None,
                                                                               None]))  # fmt: skip
    torch.testing.assert_close(sample_clips(**given), expected)


def test_empty_frames_and_absent_persons_are_zero():
    frame = FRAME.clone()
    frame[1, 2:] = -1
    given = arguments(frame=frame, person=torch.tensor([[1, -1], [0, 1]]),
                      affine=torch.randn(N, 2, 3, 4), blend=torch.rand(N, T))  # fmt: skip
    y = sample_clips(**given)
    assert not y[1, :, 2:].any() and not y[0, ..., 1].any()
    assert y[0, ..., 0].all() and y[1, :, :2].all()


@pytest.mark.parametrize("keep", [True, False])
def test_missing_joints(keep):
    xyz = torch.randn(F, M, V, C)
    xyz[:, 1] = 0
    shift = torch.eye(3, 4).index_fill(1, torch.tensor(3), 7.0).expand(N, 2, 3, 4)
    y = sample_clips(**arguments(xyz=xyz, affine=shift, keep_missing=keep))
    torch.testing.assert_close(y[..., 1], torch.full_like(y[..., 1], 0.0 if keep else 7.0))
    torch.testing.assert_close(y[..., 0], channels_first(xyz[FRAME])[..., 0] + 7)


def test_joints_keep_their_own_transform_and_dropped_ones_are_zero():
    branch = torch.tensor([[CORRUPT, 0, 0, DROP, 0]] * N, dtype=torch.uint8)
    affine = torch.stack([torch.eye(3, 4), -torch.eye(3, 4)]).expand(N, 2, 3, 4)
    given = arguments(affine=affine, branch=branch)
    x, y = channels_first(given["xyz"][FRAME]), sample_clips(**given)
    assert torch.equal(y[:, :, :, 0], -x[:, :, :, 0]) and not y[:, :, :, 3].any()
    assert torch.equal(y[:, :, :, [1, 2, 4]], x[:, :, :, [1, 2, 4]])


def test_bones_are_differences_and_parts_are_named_in_the_numbers_of_the_layout():
    given = arguments(part=torch.tensor([4, 0]), parent=torch.tensor([[1, -1]]))
    x, y = channels_first(given["xyz"][FRAME]), sample_clips(**given)
    assert torch.equal(y[:, :, :, 0], x[:, :, :, 4] - x[:, :, :, 1])
    assert torch.equal(y[:, :, :, 1], x[:, :, :, 0])


def test_motion_before_and_after_sampling():
    """At constant speed, native motion is the speed and other motion the speed times the step."""
    speed = torch.randn(M, V, C)
    xyz = torch.arange(F).view(F, 1, 1, 1) * speed + torch.randn(M, V, C)
    given = arguments(
        xyz=xyz, frame=torch.tensor([[0, 1, 3, 4]] * N), bounds=torch.tensor([[0, F]] * N),
        blend=torch.tensor([[0.0, 0.5, 0.5, 0.0]] * N), kinds=[NATIVE, MOTION],
        parent=torch.full((2, V), -1),
    )  # fmt: skip
    native, motion = sample_clips(**given).split(C, dim=1)
    step = torch.tensor([1.5, 2.0, 0.5, 0.0]).view(T, 1, 1)
    per_frame = speed.permute(2, 1, 0)[None, :, None]
    torch.testing.assert_close(native, per_frame.expand_as(native), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(motion, per_frame * step + 0 * motion, rtol=1e-4, atol=1e-5)


def test_angles_of_a_bone_with_the_axes():
    xyz = torch.zeros(F, M, V, C)
    xyz[..., 0, :] = torch.tensor([0.0, 2.0, 0.0])
    xyz[..., 1, :] = torch.tensor([3.0, 3.0, 0.0])
    y = sample_clips(**arguments(xyz=xyz, kinds=[ANGLE]))
    right, half = torch.pi / 2, torch.pi / 4
    expected = torch.tensor([[right, 0, right], [half, half, right], [0, 0, 0]])
    torch.testing.assert_close(y[0, :, 0, :3, 0].T, expected)


def test_scores_are_resampled_but_not_transformed():
    score = torch.rand(F, M, V, 1)
    given = arguments(
        xyz=torch.cat([torch.randn(F, M, V, 2), score], dim=-1),
        affine=torch.randn(N, 2, 2, 3),
        parent=torch.tensor([[-1] * V, [1] * V, [1] * V]),
        kinds=[0, 0, SCORE_MEAN],
    )
    y = sample_clips(**given)
    s = channels_first(score[FRAME])[:, 0]
    parent = s[:, :, 1:2]
    torch.testing.assert_close(y[:, 2], s)
    torch.testing.assert_close(y[:, 5], s - parent)
    torch.testing.assert_close(y[:, 8], (s + parent) / 2)


def test_conversion_is_a_weighted_mean():
    index = torch.tensor([[0, 1], [2, 0], [4, 3]])
    weight = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    given = arguments(convert=index, convert_weight=weight, parent=torch.full((1, 3), -1))
    mean = (given["xyz"][..., index, :] * weight[..., None]).sum(-2)
    torch.testing.assert_close(sample_clips(**given), channels_first(mean[FRAME]))


def test_blur():
    taps = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 2.0]])
    given = arguments(blur=taps)
    plain, y = sample_clips(**arguments(xyz=given["xyz"])), sample_clips(**given)
    assert torch.equal(y[0], plain[0])
    before, after = torch.zeros(2, *plain[1].shape)
    before[:, 1:] = plain[1, :, :-1]
    after[:, :-2] = plain[1, :, 2:]  # frames outside the window count as zero
    torch.testing.assert_close(y[1], (before + plain[1]) / 2 + 2 * after)


def test_noise():
    """Of the wanted spread on each axis, also where nothing was seen; a draw of its own."""
    frames = 200
    given = arguments(
        xyz=torch.zeros(F, M, V, C),
        frame=torch.zeros(3, frames, dtype=torch.int64),
        bounds=FULL[:1].expand(3, 2),
        blend=torch.zeros(3, frames),
        affine=torch.eye(3, 4).expand(3, 2, 3, 4),
        noise_std=torch.tensor([[1.0, 0.1, 0.0]] * 3),
        draw=torch.tensor([4, 9, 4]),
    )
    y = sample_clips(**given, seed=1)
    spread = y.permute(1, 0, 2, 3, 4).flatten(1).std(1)
    assert abs(spread[0] - 1) < 0.05 and abs(spread[1] - 0.1) < 0.005 and spread[2] == 0
    assert torch.equal(y[0], y[2]) and not torch.equal(y[0], y[1])
    for key in ("seed", "epoch", "stream"):
        assert not torch.equal(sample_clips(**given, **{"seed": 1, key: 2}), y)


def test_given_noise_is_added():
    noise = torch.randn(N, C, T, V, M)
    given = arguments(noise=noise)
    expected = channels_first(given["xyz"][FRAME]) + noise
    torch.testing.assert_close(sample_clips(**given), expected)


def test_unit_box_spans_all_frames_of_the_clip():
    xyz = 5 + torch.randn(F, M, V, C)
    xyz[:, 1] = 0  # a missing person does not count
    given = arguments(xyz=xyz, affine=torch.randn(N, 2, 3, 4), unit_box=True)
    every = torch.arange(F).view(N, 6)
    y = sample_clips(**given | {"frame": every, "blend": torch.zeros(N, 6)})
    torch.testing.assert_close(y[..., 0].amin((2, 3)), -torch.ones(N, C))
    torch.testing.assert_close(y[..., 0].amax((2, 3)), torch.ones(N, C))
    assert not y[..., 1].any()
    torch.testing.assert_close(sample_clips(**given)[0], y[0][:, FRAME[0]])
    empty = sample_clips(**given | {"xyz": torch.zeros(F, M, V, C)})
    assert torch.equal(empty, torch.zeros_like(empty))
    masked = given["affine"].clone()
    masked[:, :, 1] = 0
    branch = torch.zeros(N, V, dtype=torch.uint8)
    branch[:, 2] = DROP
    y = sample_clips(**given | {"frame": every, "blend": torch.zeros(N, 6), "affine": masked,
                                "branch": branch})  # fmt: skip
    assert not y[:, 1].any() and not y[:, :, :, 2].any()
    seen = y[:, [0, 2]][:, :, :, [0, 1, 3, 4], 0]
    torch.testing.assert_close(seen.amin((2, 3)), -torch.ones(N, 2))
    torch.testing.assert_close(seen.amax((2, 3)), torch.ones(N, 2))


@pytest.mark.parametrize("stored", [torch.float16, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float64])
def test_dtypes(stored, wanted):
    given = arguments(xyz=torch.randn(F, M, V, C).to(stored), dtype=wanted)
    y = sample_clips(**given)
    assert y.dtype == wanted
    assert torch.equal(y, channels_first(given["xyz"][FRAME]).to(wanted))


def test_nothing_to_sample():
    rows = {key: value[:0] for key, value in arguments().items()
            if key in ("bounds", "frame", "blend", "affine")}  # fmt: skip
    assert sample_clips(**arguments(**rows)).shape == (0, C, T, V, M)
    no_frames = {"frame": FRAME[:, :0], "blend": torch.zeros(N, 0)}
    assert sample_clips(**arguments(**no_frames)).shape == (N, C, 0, V, M)
    no_streams = {"parent": torch.zeros(0, V, dtype=torch.int64), "kinds": []}
    assert sample_clips(**arguments(**no_streams)).shape == (N, 0, T, V, M)


def long(*shape):
    return torch.zeros(shape, dtype=torch.int64)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"xyz": [1]}, TypeError, "xyz to be a tensor, got list"),
        ({"xyz": long(F, M, V, C)}, TypeError, "xyz of a floating dtype, got torch.int64"),
        ({"xyz": torch.zeros(F, V, C)}, ValueError, "xyz of shape (F, M, V, C), got (12, 5, 3)"),
        (
            {"xyz": torch.zeros(F, M, V, C, requires_grad=True)},
            TypeError,
            "xyz that requires no gradient, got one that does",
        ),
        ({"xyz": torch.zeros(F, M, V, 2)}, ValueError, "xyz with at least the 3 channels of affin"),
        ({"frame": long(N)}, ValueError, "frame of shape (N, T), got "),
        ({"frame": None}, TypeError, "frame to be a tensor, got NoneType"),
        ({"frame": FRAME.int()}, TypeError, "frame of torch.int64, got torch.int32"),
        ({"bounds": FULL[:1]}, ValueError, "bounds of shape (N, 2) with N=2, got (1, 2)"),
        ({"bounds": FULL.float()}, TypeError, "bounds of torch.int64, got torch.float32"),
        ({"blend": long(N, T)}, TypeError, "blend of a floating dtype, got torch.int64"),
        ({"blend": 0.5}, TypeError, "blend to be a tensor, got float"),
        ({"affine": torch.zeros(N, 3, 4)}, ValueError, "affine of shape (N, 2, D, D+1)"),
        ({"affine": torch.zeros(N, 2, 4, 5)}, ValueError, "affine of 1 to 3 coordinates, got 4"),
        ({"affine": torch.zeros(N, 2, 3, 3)}, ValueError, "affine of shape (N, 2, D, D+1) with"),
        ({"parent": long(2, V)}, ValueError, "parent of shape (S, W) with S=1, W=5, got (2, 5)"),
        ({"part": long(2)}, ValueError, "parent of shape (S, W) with S=1, W=2, got (1, 5)"),
        ({"order": [0, 1]}, TypeError, "order to be a tensor, got list"),
        ({"person": long(1, 3)}, ValueError, "person of shape (N, M) with N=2, M=3, got (1, 3)"),
        ({"order": long(N, V + 1)}, ValueError, "order of shape (N, V) with N=2, V=5, got (2, 6)"),
        ({"branch": long(N, V)}, TypeError, "branch of torch.uint8, got torch.int64"),
        ({"convert": long(V, 2)}, ValueError, "convert and convert_weight together, got one of th"),
        (
            {"convert": long(V, 2), "convert_weight": torch.zeros(4, 2)},
            ValueError,
            "convert_weight of shape (V, K) with V=5, got (4, 2)",
        ),
        ({"blur": torch.zeros(N, 4)}, ValueError, "an odd number of blur taps, got 4"),
        ({"noise": torch.zeros(N, C, T, V)}, ValueError, "noise of shape (N, D, T, V, M)"),
        ({"noise_std": torch.ones(N, 3)}, ValueError, "draw with noise_std, got None"),
        (
            {"noise_std": torch.ones(N, 3), "draw": long(N), "epoch": -1},
            ValueError,
            "epoch in [0, 2^31), got -1",
        ),
        ({"kinds": [32]}, ValueError, "kinds in 0..31, got [32]"),
        (
            {"kinds": [NATIVE, NATIVE | MOTION_MEAN], "parent": long(2, V)},
            ValueError,
            "MOTION_MEAN of all NATIVE motion or of none, got [2, 18]",
        ),
        (
            {"kinds": [NATIVE], "unit_box": True},
            ValueError,
            "NATIVE motion without blur, noise and unit_box, got [2]",
        ),
        ({"dtype": torch.int32}, TypeError, "a floating dtype, got torch.int32"),
    ],
)  # fmt: skip
def test_refusals(changes, error, message):
    with pytest.raises(error, match=re.escape(f"sample_clips: expected {message}")):
        sample_clips(**arguments(**changes))


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize(
    "changes",
    [
        {"frame": FRAME + 1},
        {"frame": FRAME - 1},
        {"frame": torch.full((N, T), -2)},
        {"frame": torch.full((N, T), 2**62)},
        {"bounds": FULL + 1},
        {"bounds": FULL - 1},
        {"parent": torch.full((1, V), V)},
        {"parent": torch.full((1, V), -2)},
        {"part": torch.full((V,), V)},
        {"part": torch.full((V,), -1)},
        {"person": torch.full((N, M), M)},
        {"person": torch.full((N, M), -2)},
        {"order": torch.full((N, V), V)},
        {"order": torch.full((N, V), -1)},
        {"convert": torch.full((V, 1), V), "convert_weight": torch.ones(V, 1)},
        {"convert": torch.full((V, 1), -1), "convert_weight": torch.ones(V, 1)},
        {"branch": torch.full((N, V), 3, dtype=torch.uint8)},
    ],
    ids=lambda changes: f"{next(iter(changes))}_{next(iter(changes.values())).flatten()[0]}",
)
def test_indices_out_of_range_raise(changes, name):
    """A kernel must never follow them, by whatever way it is called."""
    op = OPS["sample_clips"]
    if unavailable(op, name, "cpu"):
        pytest.skip("no C++ kernels in this build")
    given = arguments(**changes)
    ordered = [given.get(key) for _, key in op.arguments[:17]]
    wrong = "part" if "part" in changes else next(iter(changes))
    with (
        use_backend(name),
        pytest.raises((ValueError, RuntimeError), match=f"sample_clips: expected {wrong}"),
    ):
        torch.ops.skelops.sample_clips(*ordered, 0, 0, 0, True, False, torch.float32)
