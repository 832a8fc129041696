"""Training batches from a ragged store of clips: resample, transform, augment, derive streams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skelops import _check
from skelops._library import define
from skelops.ops import _philox
from skelops.ops.random_uniform import check_key

MOTION, NATIVE, ANGLE, SCORE_MEAN, MOTION_MEAN = 1, 2, 4, 8, 16
KEEP, CORRUPT, DROP = 0, 1, 2


def sample_clips(
    xyz: Tensor,
    bounds: Tensor,
    frame: Tensor,
    blend: Tensor,
    affine: Tensor,
    parent: Tensor,
    kinds: Sequence[int],
    *,
    part: Tensor | None = None,
    person: Tensor | None = None,
    convert: Tensor | None = None,
    convert_weight: Tensor | None = None,
    order: Tensor | None = None,
    branch: Tensor | None = None,
    blur: Tensor | None = None,
    noise: Tensor | None = None,
    noise_std: Tensor | None = None,
    draw: Tensor | None = None,
    seed: int = 0,
    epoch: int = 0,
    stream: int = 0,
    keep_missing: bool = True,
    unit_box: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Build a batch from a store of clips: one read of the source, one write of the result.

    With the frame taps :math:`f = frame_{nt}`, their weight :math:`w = blend_{nt}`, presence
    :math:`p` of a joint (0 where all its coordinates are zero, else 1) and homogeneous points
    :math:`\tilde x = (x, p)`:

    .. math::

        z_{nctvm} &= \sum_k blur_{nk} \Big[ A^{s(n,v)}_n
            \big((1-w)\,\tilde x_{f} + w\,\tilde x_{f+1}\big)_{order_n(v),\,person_n(m)}
            + \sigma_{nc}\,\epsilon_{ncvm} \Big]_{t+k}

        y^{s}_{nctvm} &= z_{n,c,t,part(v),m} - z_{n,c,t,parent_s(v),m}

    and, for a motion stream, the difference of :math:`y^s` to the next frame, zero in the last.
    Shear, rotation, scale, translation, centring, axis masks and the corruption or removal of
    joints are entries of ``affine``; crops, resizing, reflection, loops, uniform segments and
    reversal are entries of ``frame``. :class:`skelops.data.ClipPlan` builds them by name.

    Args:
        xyz: (F, M, V, C) floating, frames of all clips end to end. The first D channels are
            coordinates; further ones (confidence) are resampled, but not transformed.
        bounds: (N, 2) int64, first frame of each clip and one past its last.
        frame: (N, T) int64, first tap of every output frame, inside the clip; -1 gives zeros.
        blend: (N, T), weight of the tap after it (of the same one at the end of the clip).
        affine: (N, 2, D, D + 1), the two transforms of homogeneous points.
        parent: (S, V") int64, per stream the joint to subtract; -1 for none.
        kinds: S sums of ``MOTION`` 1, ``NATIVE`` 2 (differences of source frames, taken before
            resampling), ``ANGLE`` 4 (arccos of the direction cosines, in radians; 0 for a zero
            vector), ``SCORE_MEAN`` 8 (further channels are the mean of both joints) and
            ``MOTION_MEAN`` 16 (of motion they are the mean of both frames, zero in the last).
        part: (V",) int64, joints to return; default all. ``parent`` refers to the same numbering.
        person: (N, M') int64, source of each person; -1 for an absent one. Default: all of ``xyz``.
        convert: (V', K) int64, joints of ``xyz`` that are averaged into each joint of the layout.
        convert_weight: (V', K), their weights.
        order: (N, V') int64, which joint of the layout takes each place (flips).
        branch: (N, V') uint8: ``KEEP`` 0 first transform, ``CORRUPT`` 1 second one, ``DROP`` 2
            zero.
        blur: (N, K) with K odd, taps centred on the frame; frames outside the window count as zero.
        noise: (N, D, T, V', M') added before the blur.
        noise_std: (N, D), adds generated normal noise of this standard deviation before the blur.
        draw: (N,) int64, key of the generated noise with ``seed``, ``epoch`` and ``stream``, see
            :func:`skelops.random_uniform`.
        keep_missing: joints that are all zero stay zero whatever the translation; if False, they
            are points like any other.
        unit_box: shift and scale each axis so that the transformed clip spans [-1, 1] over all its
            frames (not only those sampled) and its joints that are neither missing nor dropped; an
            axis along which it does not extend becomes zero.
        dtype: of the result.

    Returns:
        (N, S * C, T, V", M'), streams one after the other.

    Raises:
        ValueError: shapes that disagree, ``NATIVE`` with blur, noise or the unit box, ``NATIVE``
            streams of which only some have ``MOTION_MEAN``.
        RuntimeError: frames, joints or persons out of range (from the reference a ValueError); on
            a GPU, where looking would cost a synchronisation, they count as absent.
        TypeError: tensors of the wrong kind, ``xyz`` that requires a gradient.

    Backends: cpu, cuda, reference.

    Example:
        >>> xyz = torch.randn(40, 2, 25, 3)  # two clips of 20 frames
        >>> y = sample_clips(
        ...     xyz,
        ...     torch.tensor([[0, 20], [20, 40]]),
        ...     torch.tensor([[0, 5, 10, 15], [20, 25, 30, 35]]),
        ...     torch.zeros(2, 4),
        ...     torch.eye(3, 4).expand(2, 2, 3, 4),
        ...     torch.full((1, 25), -1),
        ...     [0],
        ... )
        >>> y.shape
        torch.Size([2, 3, 4, 25, 2])

    Source: the feeders of CTR-GCN (Chen et al., ICCV 2021), HiCLR (Zhang et al., AAAI 2023), HaLP
    (Shah et al., CVPR 2023) and PYSKL (Duan et al., ACM MM 2022) as one formula.
    """
    name = "sample_clips"
    _check.tensors(name, xyz=xyz)
    _check.shape(name, "xyz", xyz, "F M V C")
    if xyz.requires_grad:
        raise TypeError(f"{name}: expected xyz that requires no gradient, got one that does")
    tables = (
        ("bounds", bounds, "N 2", torch.int64),
        ("frame", frame, "N T", torch.int64),
        ("blend", blend, "N T", None),
        ("affine", affine, "N 2 D D+1", None),
        ("parent", parent, "S W", torch.int64),
        ("part", part, "W", torch.int64),
        ("person", person, "N M", torch.int64),
        ("convert", convert, "V K", torch.int64),
        ("convert_weight", convert_weight, "V K", None),
        ("order", order, "N V", torch.int64),
        ("branch", branch, "N V", torch.uint8),
        ("blur", blur, "N K", None),
        ("noise", noise, "N D T V M", None),
        ("noise_std", noise_std, "N D", None),
        ("draw", draw, "N", torch.int64),
    )
    needed = ("bounds", "frame", "blend", "affine", "parent")
    given: list[tuple] = [row for row in tables if row[0] in needed or row[1] is not None]
    for key, value, dims, _ in given:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected {key} to be a tensor, got {type(value).__name__}")
        if value.dim() != len(dims.split()):
            _check.shape(name, key, value, dims)
    (N, T), D = frame.shape, affine.shape[2]
    V = xyz.shape[2] if convert is None else convert.shape[0]
    M = xyz.shape[1] if person is None else person.shape[1]
    S, W = len(kinds), V if part is None else part.shape[0]
    if not 1 <= D <= 3:
        raise _check.fail(name, "affine of 1 to 3 coordinates", D)
    sizes = dict(N=N, T=T, D=D, V=V, M=M, S=S, W=W) | {"2": 2, "D+1": D + 1}
    for key, value, dims, kind in given:
        if not (value.is_floating_point() if kind is None else value.dtype == kind):
            wanted = kind or "a floating dtype"
            raise TypeError(f"{name}: expected {key} of {wanted}, got {value.dtype}")
        if value.device != xyz.device:
            raise _check.fail(name, f"{key} on xyz's device {xyz.device}", value.device)
        _check.shape(name, key, value, dims, **sizes)
    if xyz.shape[3] < D:
        raise _check.fail(name, f"xyz with at least the {D} channels of affine", xyz.shape[3])
    if (convert is None) != (convert_weight is None):
        raise _check.fail(name, "convert and convert_weight together", "one of them")
    if blur is not None and blur.shape[1] % 2 == 0:
        raise _check.fail(name, "an odd number of blur taps", blur.shape[1])
    if noise_std is not None:
        if draw is None:
            raise _check.fail(name, "draw with noise_std", None)
        check_key(name, draw, seed, epoch, stream)
    if any(not 0 <= kind < 32 for kind in kinds):
        raise _check.fail(name, "kinds in 0..31", list(kinds))
    plain = blur is None and noise is None and noise_std is None and not unit_box
    if not plain and any(kind & NATIVE for kind in kinds):
        raise _check.fail(name, "NATIVE motion without blur, noise and unit_box", list(kinds))
    if len({kind & MOTION_MEAN for kind in kinds if kind & NATIVE}) > 1:
        raise _check.fail(name, "MOTION_MEAN of all NATIVE motion or of none", list(kinds))
    if not dtype.is_floating_point:
        raise TypeError(f"{name}: expected a floating dtype, got {dtype}")
    return _op(
        xyz, bounds, frame, blend, affine, parent, list(kinds), part, person, convert,
        convert_weight, order, branch, blur, noise, noise_std, draw, seed, epoch, stream,
        keep_missing, unit_box, dtype,
    )  # fmt: skip


def check_tables(
    name: str, xyz: Tensor, bounds: Tensor, frame: Tensor, parent: Tensor, part: Tensor | None,
    person: Tensor | None, convert: Tensor | None, order: Tensor | None, branch: Tensor | None,
) -> None:  # fmt: skip
    """Indices in range: a kernel follows them blindly."""
    F, M, V, _ = xyz.shape
    joints = V if convert is None else len(convert)

    def check(key: str, index: Tensor | None, low: int, high: int) -> None:
        if index is not None and index.numel():
            least, most = (int(i) for i in index.aminmax())
            if least < low or most >= high:
                wrong = least if least < low else most
                raise _check.fail(name, f"{key} in {low}..{high - 1}", wrong)

    check("bounds", bounds, 0, F + 1)
    check("parent", parent, -1, joints)
    check("part", part, 0, joints)
    check("person", person, -1, M)
    check("convert", convert, 0, V)
    check("order", order, 0, joints)
    check("branch", branch, 0, 3)
    outside = (frame < bounds[:, :1]) | (frame >= bounds[:, 1:])
    if (outside & (frame != -1)).any():
        n, t = (outside & (frame != -1)).nonzero()[0].tolist()
        inside = f"frame in {bounds[n, 0]}..{bounds[n, 1] - 1} or -1 in sample {n}"
        raise _check.fail(name, inside, int(frame[n, t]))


def _reference(
    xyz, bounds, frame, blend, affine, parent, kinds, part, person, convert, convert_weight,
    order, branch, blur, noise, noise_std, draw, seed, epoch, stream, keep_missing, unit_box,
    dtype,
):  # fmt: skip
    check_tables("sample_clips", xyz, bounds, frame, parent, part, person, convert, order, branch)
    N, D = len(frame), affine.shape[2]
    compute = torch.float64 if xyz.dtype == torch.float64 else torch.float32

    def points(index: Tensor, n: Tensor) -> Tensor:
        """Homogeneous points, then scores, of frames (B, T) of samples n: (B, T, V, M, C + 1)."""
        x = xyz[index.clamp(min=0)].to(compute)
        if person is not None:
            who = person[n][:, None, :, None, None]
            x = x.take_along_dim(who.clamp(min=0), 2) * (who >= 0)
        if convert is not None:
            x = (x[..., convert, :] * convert_weight.to(compute)[..., None]).sum(-2)
        if order is not None:
            x = x.take_along_dim(order[n][:, None, None, :, None], 3)
        present = (x[..., :D] != 0).any(-1, keepdim=True) | (not keep_missing)
        x = torch.cat([x[..., :D], present.to(compute), x[..., D:]], dim=-1)
        return (x * (index >= 0)[..., None, None, None]).transpose(2, 3)

    everyone = torch.arange(N, device=xyz.device)
    choice = torch.zeros(N, 1, dtype=torch.long, device=xyz.device) if branch is None else branch
    transforms = torch.cat([affine, torch.zeros_like(affine[:, :1])], dim=1).to(compute)
    transform = transforms[everyone[:, None], choice.long()]  # (N, V or 1, D, D + 1)
    if unit_box and N:
        kept = (choice != DROP).expand(N, transform.shape[1])
        transform = torch.stack([_boxed(points, *row, n) for n, row in
                                 enumerate(zip(bounds, transform, kept, strict=True))])  # fmt: skip

    def moved(x: Tensor) -> Tensor:
        """Transformed coordinates and scores, (N, C, T, V, M)."""
        y = torch.einsum("nvij,ntvmj->nitvm", transform.expand(N, x.shape[2], D, D + 1),
                         x[..., : D + 1])  # fmt: skip
        return torch.cat([y, x[..., D + 1 :].permute(0, 4, 1, 2, 3)], dim=1)

    last = bounds[:, 1:] - 1
    following = torch.where(frame < 0, frame, torch.minimum(frame + 1, last))
    w = blend.to(compute)[..., None, None, None]
    low, high = points(frame, everyone), points(following, everyone)
    z = moved((1 - w) * low + w * high)
    native = z
    if any(kind & NATIVE for kind in kinds):
        third = points(torch.where(frame < 0, frame, torch.minimum(frame + 2, last)), everyone)
        steps = [high - low, third - high]
        if any(kind & NATIVE and kind & MOTION_MEAN for kind in kinds):
            for i, (step, a, b) in enumerate(zip(steps, (low, high), (high, third), strict=True)):
                goes_on = (frame + i < last)[..., None, None, None]
                step[..., D + 1 :] = ((a + b) / 2 * goes_on)[..., D + 1 :]
        native = moved((1 - w) * steps[0] + w * steps[1])
    coordinates = z[:, :D]
    if noise is not None:
        coordinates = coordinates + noise.to(compute)
    if noise_std is not None:
        epsilon = _philox.normal(draw, seed, epoch, stream, coordinates[0].numel() if N else 0)
        scale = noise_std.to(compute)[:, :, None, None, None]
        coordinates = coordinates + scale * epsilon.view(coordinates.shape).to(compute)
    if blur is not None:
        half, T = blur.shape[1] // 2, frame.shape[1]
        padded = torch.nn.functional.pad(coordinates, (0, 0, 0, 0, half, half))
        taps = blur.to(compute)[:, :, None, None, None, None].unbind(1)
        coordinates = sum(tap * padded[:, :, k : k + T] for k, tap in enumerate(taps))
    z = torch.cat([coordinates, z[:, D:]], dim=1)

    streams = []
    for joints, kind in zip(parent, kinds, strict=True):
        source = native if kind & NATIVE else z
        here = source if part is None else source[:, :, :, part]
        there = source[:, :, :, joints.clamp(min=0)]
        has_parent = (joints >= 0)[:, None]
        y = here - there * has_parent
        if kind & SCORE_MEAN:
            y[:, D:] = torch.where(has_parent, (here + there) / 2, here)[:, D:]
        if kind & ANGLE:
            length = y[:, :D].norm(dim=1, keepdim=True)
            cosine = (y[:, :D] / length.clamp(min=torch.finfo(compute).tiny)).clamp(-1, 1)
            y = torch.cat([cosine.acos() * (length > 0), y[:, D:]], dim=1)
        if kind & MOTION:
            step = y[:, :, 1:] - y[:, :, :-1]
            if kind & MOTION_MEAN:
                step[:, D:] = (y[:, D:, 1:] + y[:, D:, :-1]) / 2
            y = torch.cat([step, torch.zeros_like(y[:, :, :1])], dim=2)
        streams.append(y)
    return torch.cat(streams, dim=1).to(dtype)


def _boxed(points, bounds: Tensor, transform: Tensor, kept: Tensor, n: int) -> Tensor:
    """The transforms of one sample (V or 1, D, D + 1), then the map of its clip's box to [-1, 1].

    An axis along which the clip does not extend becomes zero, as dropped joints stay.
    """
    index = torch.arange(int(bounds[0]), int(bounds[1]), device=bounds.device)[None]
    D = transform.shape[-2]
    x = points(index, torch.tensor([n], device=bounds.device))[0]  # (T, V, M, C + 1)
    y = torch.einsum("vij,tvmj->tvmi", transform.expand(x.shape[1], D, D + 1), x[..., : D + 1])
    seen = (x[..., D : D + 1] > 0) & kept[:, None, None]
    low = y.masked_fill(~seen, torch.inf).amin((0, 1, 2))
    high = y.masked_fill(~seen, -torch.inf).amax((0, 1, 2))
    scale = torch.where(high > low, 2 / (high - low), 0.0)
    boxed = transform * scale[:, None]
    boxed[..., D] -= torch.where(high > low, 1 + scale * low, 0.0) * kept[:, None]
    return boxed


def _fake(
    xyz, bounds, frame, blend, affine, parent, kinds, part, person, convert, convert_weight,
    order, branch, blur, noise, noise_std, draw, seed, epoch, stream, keep_missing, unit_box,
    dtype,
):  # fmt: skip
    N, T = frame.shape
    M = xyz.shape[1] if person is None else person.shape[1]
    return xyz.new_empty(N, len(kinds) * xyz.shape[3], T, parent.shape[1], M, dtype=dtype)


_op = define(
    "sample_clips",
    "(Tensor xyz, Tensor bounds, Tensor frame, Tensor blend, Tensor affine, Tensor parent, "
    "int[] kinds, Tensor? part, Tensor? person, Tensor? convert, Tensor? convert_weight, "
    "Tensor? order, Tensor? branch, Tensor? blur, Tensor? noise, Tensor? noise_std, "
    "Tensor? draw, int seed, int epoch, int stream, bool keep_missing, bool unit_box, "
    "ScalarType dtype) -> Tensor",
    _reference,
    fake=_fake,
    grads=(),
    gpu=("cuda",),
)
