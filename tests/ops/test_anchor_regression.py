"""anchor_regression: what the mathematics knows, and how it refuses."""

import re

import pytest
import torch

from skelops import anchor_regression


def inputs(N=2, A=37, V=5, D=2, **kwargs):
    logits, offset = torch.randn(N, A, V, **kwargs), torch.randn(N, A, V, D, **kwargs)
    return logits, offset, torch.randn(A, D, **kwargs), torch.randn(N, A, V, **kwargs)


def test_equal_weights_give_the_mean():
    _, offset, anchors, extra = inputs(dtype=torch.float64)
    joints, mean = anchor_regression(torch.zeros_like(extra), offset, anchors, extra)
    torch.testing.assert_close(joints[..., :2], (offset + anchors[:, None]).mean(1))
    torch.testing.assert_close(joints[..., 2], extra.mean(1))
    torch.testing.assert_close(mean, anchors.mean(0).expand_as(mean))


def test_an_anchor_may_be_left_out():
    logits, offset, anchors, extra = inputs()
    logits[:, 20:] = -torch.inf
    found = anchor_regression(logits, offset, anchors, extra)
    few = anchor_regression(logits[:, :20], offset[:, :20], anchors[:20], extra[:, :20])
    torch.testing.assert_close(found, few)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_a_common_logit_does_not_matter(shift):
    logits, offset, anchors, extra = inputs(dtype=torch.float64)
    found = anchor_regression(logits + shift, offset, anchors, extra)
    torch.testing.assert_close(found, anchor_regression(logits, offset, anchors, extra))


@pytest.mark.parametrize("A", [1, 64, 65, 2048, 2049, 4500])
def test_any_number_of_anchors(A):
    args = inputs(A=A, V=9)
    exact = (t.double() for t in args)
    found, expected = anchor_regression(*args), anchor_regression(*exact)
    torch.testing.assert_close(found, tuple(t.float() for t in expected), rtol=1e-5, atol=1e-5)


def test_anchors_per_sample_and_shared_agree():
    logits, offset, anchors, _ = inputs(D=3)
    each = anchors.expand(2, -1, -1)
    found = anchor_regression(logits, offset, each)
    torch.testing.assert_close(found, anchor_regression(logits, offset, anchors))


def test_half_types_give_float32():
    logits, offset, anchors, extra = inputs(dtype=torch.bfloat16)
    joints, mean = anchor_regression(logits, offset, anchors.float(), extra)
    assert joints.dtype == mean.dtype == torch.float32


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(logits=torch.zeros(2, 37)), ValueError, "logits of shape (N, A, V), got (2, 37)"),
        (dict(offset=torch.zeros(2, 37, 5, 4)), ValueError, "offset with D=2 or 3"),
        (dict(offset=torch.zeros(2, 36, 5, 2)), ValueError, "offset of shape (N, A, V, D) with"),
        (dict(anchors=torch.zeros(37, 3)), ValueError, "anchors of shape (A, D) with"),
        (dict(anchors=torch.zeros(3, 37, 2)), ValueError, "anchors of shape (N, A, D) with"),
        (dict(extra=torch.zeros(2, 37, 4)), ValueError, "extra of shape (N, A, V) with"),
        (dict(extra=torch.zeros(2, 37, 5).half()), TypeError, "extra"),
        (dict(anchors=torch.zeros(37, 2).long()), TypeError, "anchors of dtype"),
    ],
)
def test_bad_input(change, error, message):
    named = dict(zip(("logits", "offset", "anchors", "extra"), inputs(), strict=True)) | change
    with pytest.raises(error, match=re.escape(message)) as raised:
        anchor_regression(**named)
    assert str(raised.value).startswith("anchor_regression: expected")


def test_no_anchor():
    with pytest.raises(ValueError, match="at least one anchor"):
        anchor_regression(torch.zeros(2, 0, 5), torch.zeros(2, 0, 5, 2), torch.zeros(0, 2))
