"""pose_heatmap: what is drawn and where, against the words of the published code; bad input."""

import math
import re

import pytest
import torch

from skelops import pose_heatmap
from skelops.graph import get_layout

COCO = get_layout("coco17")


def one(x, y, score=1.0, H=9, W=11, **options):
    """The map of a single joint."""
    keypoint = torch.tensor([x, y], dtype=torch.float64).view(1, 1, 1, 1, 2)
    scores = torch.full((1, 1, 1, 1), score, dtype=torch.float64)
    return pose_heatmap(keypoint, scores, H, W, **options)[0, 0, 0]


def limb(a, b, scores=(1.0, 1.0), H=20, W=20, **options):
    keypoint = torch.tensor([a, b], dtype=torch.float64).view(1, 1, 1, 2, 2)
    score = torch.tensor(scores, dtype=torch.float64).view(1, 1, 1, 2)
    options = {"joints": False, "limbs": [(0, 1)]} | options
    return pose_heatmap(keypoint, score, H, W, **options)[0, 0, 0]


def test_equals_its_equation():
    y = one(4.3, 5.1, 0.7)
    for row, column in ((5, 4), (4, 5), (6, 3)):
        d = (column - 4.3) ** 2 + (row - 5.1) ** 2
        assert y[row, column] == pytest.approx(0.7 * math.exp(-d / 0.72))
    assert (y > 0).sum() == 5 * 4  # trunc(2.5) to trunc(6.1), trunc(3.3) to trunc(6.9)


@pytest.mark.parametrize(
    ("x", "columns"),
    [(-2.5, [0]), (-2.8, []), (-2.81, []), (0.0, [0, 1]), (11.9, [10]), (12.79, [10]), (12.81, [])],
)
def test_boxes_are_truncated_towards_zero(x, columns):
    assert (one(x, 4.0) > 0).any(0).nonzero().flatten().tolist() == columns


@pytest.mark.parametrize("convention, least", [("pyskl", 1e-3), ("epam", 1e-4)])
def test_scores_below_eps_are_not_drawn(convention, least):
    assert (one(4, 4, least, convention=convention) > 0).any()
    assert not one(4, 4, 0.99 * least, convention=convention).any()
    assert (one(4, 4, 0.01, eps=0.01) > 0).any() and not one(4, 4, 0.0099, eps=0.01).any()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_drawn(broken):
    assert not one(broken, 4).any() and not one(4, broken).any() and not one(4, 4, math.nan).any()
    assert not limb((broken, 4), (7, 7)).any() and not limb((4, 4), (7, broken)).any()
    assert not limb((4, 4), (7, 7), (1, math.nan)).any()
    x = torch.tensor([broken, 1.0]).view(1, 1, 1, 1, 2).requires_grad_()
    (dx,) = torch.autograd.grad(pose_heatmap(x, None, 5, 5).sum(), x)
    assert not dx.any()


def test_limb_is_the_distance_to_a_segment():
    y = limb((4, 10), (12, 10), (0.8, 0.5))
    assert torch.equal(y[10, 4:13], torch.full((9,), 0.5).double())
    torch.testing.assert_close(y[11, 6], y[10, 7] * math.exp(-1 / 0.72))
    assert y[10, 3] == pytest.approx(0.5 * math.exp(-1 / 0.72))  # beyond the end
    turned = limb((12, 10), (4, 10), (0.5, 0.8))
    torch.testing.assert_close(turned, y)


def test_short_limb_is_its_first_joint_with_its_own_score():
    torch.testing.assert_close(
        limb((4.2, 5.1), (4.6, 5.3), (0.9, 0.3), H=9, W=11), one(4.2, 5.1, 0.9)
    )
    assert not limb((4.2, 5.1), (4.6, 5.3), (0.9, 1e-4)).any()


def test_persons_are_the_larger_of_both():
    keypoint = 10 * torch.rand(2, 3, 2, 5, 2)
    score = torch.rand(2, 3, 2, 5)
    limbs = [(0, 1), (2, 4)]
    each = [
        pose_heatmap(keypoint[:, m : m + 1], score[:, m : m + 1], 9, 11, limbs=limbs)
        for m in range(3)
    ]
    together = pose_heatmap(keypoint, score, 9, 11, limbs=limbs)
    assert torch.equal(together, torch.stack(each).amax(0)) and together.shape == (2, 7, 2, 9, 11)


def test_flips():
    keypoint, score = 20 * torch.rand(1, 2, 3, 17, 2), torch.rand(1, 2, 3, 17)
    flip, mirror, limbs = torch.tensor([True]), COCO.mirror, [(5, 7), (6, 8), (11, 12), (0, 5)]
    options = {"limbs": limbs, "flip": flip, "mirror": mirror}
    plain = pose_heatmap(keypoint, score, 20, 24, limbs=limbs)
    found = pose_heatmap(keypoint, score, 20, 24, **options)
    partner = [*mirror, 18, 17, 19]
    torch.testing.assert_close(found[:, :20], plain[:, partner].flip(-1))
    torch.testing.assert_close(  # (6, 0) is no limb of its own
        found[:, 20], pose_heatmap(keypoint, score, 20, 24, limbs=[(0, 6)])[:, 17].flip(-1)
    )
    found = pose_heatmap(keypoint, score, 20, 24, convention="epam", **options)
    moved = torch.stack([24 - keypoint[..., 0], keypoint[..., 1]], -1)[..., list(mirror), :]
    again = pose_heatmap(moved, score[..., list(mirror)], 20, 24, limbs=limbs, convention="epam")
    torch.testing.assert_close(found, again)
    still = pose_heatmap(keypoint, score, 20, 24, **(options | {"flip": ~flip}))
    assert torch.equal(still, plain)


def test_flipped_points_of_zero_stay():
    keypoint = torch.zeros(1, 1, 1, 1, 2)
    flip = torch.tensor([True])
    y = pose_heatmap(keypoint, None, 9, 11, flip=flip, mirror=[0], convention="epam")
    assert y[0, 0, 0, 0, 0] == 1 and not y[..., 5:].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
def test_other_dtypes(dtype):
    keypoint, score = 20 * torch.rand(1, 2, 3, 17, 2), 1.2 * torch.rand(1, 2, 3, 17)
    exact = pose_heatmap(keypoint, score, 20, 24)
    found = pose_heatmap(keypoint.requires_grad_(), score, 20, 24, dtype=dtype)
    if dtype == torch.uint8:
        expected = (255 * exact + 0.5).floor().clamp(max=255)
        assert (found.float() - expected).abs().max() <= 1 and not found.requires_grad
        assert (found.float() != expected).float().mean() < 1e-3
    else:
        torch.testing.assert_close(found, exact.to(dtype))


def test_autocast_rounds_the_result_only():
    keypoint = 56 * torch.rand(1, 1, 4, 17, 2)  # bfloat16 knows quarters of pixels there
    with torch.autocast("cpu", torch.bfloat16):
        y = pose_heatmap(keypoint, None, 56, 56)
    assert torch.equal(y, pose_heatmap(keypoint, None, 56, 56).bfloat16())


@pytest.mark.parametrize("shape", [(0, 1, 2, 3), (1, 0, 2, 3), (1, 1, 0, 3), (1, 1, 1, 1)])
def test_degenerate_sizes(shape):
    keypoint = torch.rand(*shape, 2, requires_grad=True)
    y = pose_heatmap(keypoint, None, 1, 2)
    assert y.shape == (shape[0], shape[3], shape[2], 1, 2)
    assert torch.autograd.grad(y.sum(), keypoint)[0].shape == keypoint.shape


K, S = torch.zeros(2, 1, 3, 5, 2), torch.ones(2, 1, 3, 5)
FLIP = torch.tensor([True, False])
BAD = [
    (
        dict(keypoint=K[..., :1]),
        ValueError,
        "keypoint of shape (N, M, T, V, 2), got (2, 1, 3, 5, 1",
    ),
    (dict(keypoint=K.long()), TypeError, "keypoint of a floating dtype, got torch.int64"),
    (dict(score=S[:1]), ValueError, "score of shape (N, M, T, V) with N=2, M=1, T=3, V=5, got (1"),
    (dict(score=S.double()), TypeError, "score of keypoint's dtype torch.float32, got torch.floa"),
    (dict(height=0), ValueError, "a positive height, got 0"),
    (dict(width=-1), ValueError, "a positive width, got -1"),
    (dict(sigma=0.0), ValueError, "a positive sigma, got 0.0"),
    (dict(sigma=math.nan), ValueError, "a positive sigma, got nan"),
    (dict(eps=0.0), ValueError, "a positive eps, got 0.0"),
    (dict(convention="coco"), ValueError, "convention one of pyskl, epam, got 'coco'"),
    (dict(joints=False), ValueError, "joints or limbs to draw, got neither"),
    (dict(limbs=[(0, 5)]), ValueError, "limbs of joints in 0..4, got [(0, 5)]"),
    (dict(limbs=[(0, -1)]), ValueError, "limbs of joints in 0..4, got [(0, -1)]"),
    (dict(flip=FLIP), ValueError, "mirror of all 5 joints with flip, got None"),
    (dict(flip=FLIP, mirror=[0] * 5), ValueError, "mirror of all 5 joints with flip, got [0, 0"),
    (dict(flip=FLIP[:1]), ValueError, "flip of shape (N) with N=2, got (1,)"),
    (dict(flip=FLIP.long()), TypeError, "flip of bool, got torch.int64"),
    (
        dict(flip=torch.zeros(2, dtype=torch.bool, device="meta")),
        ValueError,
        "flip on keypoint's d",
    ),
    (dict(dtype=torch.int32), TypeError, "a floating dtype or torch.uint8, got torch.int32"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input(change, error, message):
    arguments = dict(keypoint=K, score=S, height=9, width=11) | change
    with pytest.raises(error, match="^" + re.escape(f"pose_heatmap: expected {message}")):
        pose_heatmap(**arguments)
