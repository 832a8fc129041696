"""Streams of clips at hand: y_s = x[joint] - x[parent_s], or its difference to the next frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops.sample_clips import MOTION


def skeleton_streams(
    x: Tensor,
    parent: Tensor | Sequence[Sequence[int]],
    kinds: Sequence[int],
    *,
    part: Tensor | Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Joints, bones and their motion of a clip, of all joints or of a part: one read, one write.

    .. math:: y^s_{nctwm} = x_{n,c,t,part(w),m} - x_{n,c,t,parent_s(w),m}

    and, for a motion stream, the difference of :math:`y^s` to the next frame, zero in the last. The
    tables are those of :func:`skelops.sample_clips`, which derives the same streams from a store of
    clips; here they stay on the host, where they are checked without waiting for a GPU.

    Args:
        x: (N, C, T, V, M), or (N, C, T, V) of one person.
        parent: (S, W) integers on the host, per stream the joint to subtract; -1 for none.
        kinds: S of 0 and ``MOTION`` 1.
        part: (W,) integers on the host, joints to return; default all. ``parent`` refers to the
            numbering of x.
        dtype: of the result. Default: x's, under autocast the region's; x itself is read as it is
            and differences are taken in float32 at least.

    Returns:
        (N, S * C, T, W, M), or without M, streams one after the other.

    Raises:
        ValueError: shapes that disagree, joints out of range, tables on a GPU, other kinds.
        TypeError: ``x`` or ``dtype`` is not floating point.

    Backends: cpu, triton, reference.

    Example:
        >>> parents = skelops.graph.get_layout("ntu25").parents
        >>> x = torch.randn(8, 3, 64, 25, 2)
        >>> skeleton_streams(x, [[-1] * 25, parents], [0, 0]).shape  # joints and bones
        torch.Size([8, 6, 64, 25, 2])

    Source: the feeders of PSUMNet (Trivedi and Sarvadevabhatla, ECCVW 2022), CTR-GCN (Chen et al.,
    ICCV 2021) and BRL (Liu et al., 2023).
    """
    name = "skeleton_streams"
    _check.tensors(name, x=x)
    if x.dim() == 4:
        return skeleton_streams(x[..., None], parent, kinds, part=part, dtype=dtype)[..., 0]
    if x.dim() != 5:
        got = _check.shape_text(x.shape)
        raise _check.fail(name, "x of shape (N, C, T, V, M) or (N, C, T, V)", got)
    V, kinds = x.shape[3], list(kinds)
    joints = list(range(V)) if part is None else _table(name, "part", part)
    rows = _table(name, "parent", parent)
    if not kinds or any(kind not in (0, MOTION) for kind in kinds):
        raise _check.fail(name, "kinds of 0 and 1 (motion)", kinds)
    if not joints or not all(0 <= v < V for v in joints):
        raise _check.fail(name, f"part of joints in 0..{V - 1}", joints)
    if len(rows) != len(kinds) or any(len(row) != len(joints) for row in rows):
        wanted = f"parent of {len(kinds)} rows of {len(joints)} joints"
        raise _check.fail(name, wanted, f"rows of {[len(row) for row in rows]}")
    flat = [v for row in rows for v in row]
    if not all(-1 <= v < V for v in flat):
        raise _check.fail(name, f"parent in -1..{V - 1}", next(v for v in flat if not -1 <= v < V))
    dtype = _check.autocast_dtype(x) if dtype is None else dtype
    if not dtype.is_floating_point:
        raise TypeError(f"{name}: expected a floating dtype, got {dtype}")
    return _op(x, flat, joints, kinds, dtype)


def _table(op: str, name: str, value: Tensor | Sequence) -> list:
    if not isinstance(value, Tensor):
        return list(value)
    if value.device.type != "cpu":
        raise _check.fail(op, f"{name} on the host", value.device)
    return value.tolist()


def _reference(
    x: Tensor, parent: list[int], part: list[int], kinds: list[int], dtype: torch.dtype
) -> Tensor:
    # Behind the joints stands one that is always zero: -1 finds it.
    z = torch.nn.functional.pad(x.to(torch.promote_types(x.dtype, torch.float32)), (0, 0, 0, 1))
    streams, W = [], len(part)

    def of(joints: list[int]) -> Tensor:
        # Without a table of joints: an exported program can hold no constant of an op.
        return torch.stack([z.select(3, v) for v in joints], dim=3)

    for s, kind in enumerate(kinds):
        y = of(part) - of(parent[s * W : (s + 1) * W])
        if kind & MOTION:
            y = torch.cat([y[:, :, 1:] - y[:, :, :-1], torch.zeros_like(y[:, :, :1])], dim=2)
        streams.append(y)
    return torch.cat(streams, dim=1).to(dtype)


def _fake(x, parent, part, kinds, dtype):
    N, C, T, _, M = x.shape
    return x.new_empty(N, len(kinds) * C, T, len(part), M, dtype=dtype)


_op = define(
    "skeleton_streams",
    "(Tensor x, int[] parent, int[] part, int[] kinds, ScalarType dtype) -> Tensor",
    _reference,
    fake=_fake,
    grads=("x",),
    gpu=("triton",),
)
