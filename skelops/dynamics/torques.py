"""Joint torques of a recorded clip: a body model, smoothed derivatives, inverse dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skelops import _check
from skelops.dynamics.bodies import BodyModel, body_model
from skelops.graph import Layout, get_layout
from skelops.ops import inverse_dynamics

DEGREE = 3


class Derivatives(NamedTuple):
    """Values, velocities and accelerations (T, n)."""

    q: Tensor
    qd: Tensor
    qdd: Tensor


class Torques(NamedTuple):
    """Forces (T, n) of the coordinates ``model.names``, those of the root being what the world
    exerts, and the smoothed motion they belong to."""

    tau: Tensor
    motion: Derivatives
    model: BodyModel


def derivatives(q: Tensor, fps: float, window: int = 9) -> Derivatives:
    """Smoothed values and derivatives: cubics through windows by least squares (Savitzky-Golay).

    Near the ends the nearest whole window is used.

    Args:
        q: (T, n).
        fps: frames per second.
        window: frames; at most T are taken.

    Raises:
        ValueError: fewer than three frames or such a window, or fps not above zero.

    Source: Savitzky and Golay, Analytical Chemistry, 1964.
    """
    _check.shape("derivatives", "q", q, "T n")
    T = len(q)
    if T < 3 or window < 3:
        raise _check.fail("derivatives", "3 or more frames, and in a window", f"{T} and {window}")
    if not fps > 0:
        raise _check.fail("derivatives", "fps above zero", fps)
    W = min(window, T)
    degree = min(DEGREE, W - 1)
    place = torch.arange(W, dtype=torch.float64)
    # taps[o]: the first three coefficients of a fit about frame o of a window.
    powers = (place[None, :] - place[:, None])[..., None] ** torch.arange(degree + 1)
    taps = torch.linalg.pinv(powers)[:, :3].to(q)
    t = torch.arange(T)
    first = (t - W // 2).clamp(0, T - W)
    fits = torch.einsum("tkw,tnw->ktn", taps[t - first], q.unfold(0, W, 1)[first])
    return Derivatives(fits[0], fits[1] * fps, fits[2] * (2 * fps**2))


def unwrapped(q: Tensor, turns: Sequence[bool]) -> Tensor:
    """Coordinates (T, n) with angles that go on where they would jump by whole turns."""
    jumps = torch.round(q.diff(dim=0) / (2 * torch.pi)).cumsum(0)
    turns_ = torch.tensor(turns, dtype=q.dtype, device=q.device)
    return torch.cat([q[:1], q[1:] - 2 * torch.pi * turns_ * jumps])


def torques(
    clip: Tensor | np.ndarray,
    fps: float,
    layout: str | Layout = "ntu25",
    *,
    sex: str = "male",
    mass: float | None = None,
    gravity: Tensor | Sequence[float] | None = (0.0, -9.81, 0.0),
    window: int = 9,
    model: BodyModel | None = None,
) -> Torques:
    r"""Torques at the joints of a person in a clip.

    .. math:: \tau = M(q)\,\ddot q + C(q, \dot q)\,\dot q + g(q)

    Bones are as long as on average in the clip; angles are fitted to the directions of the bones
    and smoothed, see ``derivatives``. The ground's forces are not told apart: while a foot stands,
    the torques of its leg lack what they do, and the root's forces are their sum.

    Args:
        clip: (T, V, 3) joints of one person, in metres.
        fps: frames per second.
        layout: of the joints.
        sex, mass: of the person, see ``body_model``.
        gravity: acceleration in the clip's axes; the default is that of a camera with y up, as
            Kinect's.
        window: of the smoothing, in frames.
        model: another body model than that of the clip.

    Returns:
        Torques, in float64.

    Raises:
        ValueError: shapes do not fit, missing frames, fewer than three frames, fps not above zero.

    Example:
        >>> found = torques(clip, fps=30, layout="nw_ucla20")
        >>> found.tau[:, found.model.names.index("left_shank_about_x")]  # the knee
    """
    layout = get_layout(layout)
    x = torch.as_tensor(clip).double()
    if x.dim() != 3 or x.shape[1:] != (layout.num_joints, 3):
        wanted = f"a clip (T, {layout.num_joints}, 3) for {layout.name}"
        raise _check.fail("torques", wanted, _check.shape_text(x.shape))
    if not fps > 0:
        raise _check.fail("torques", "fps above zero", fps)
    if len(x) < 3:
        raise _check.fail("torques", "at least 3 frames", len(x))
    missing = (x == 0).flatten(1).all(1) | ~x.isfinite().flatten(1).all(1)
    if missing.any():
        frames = f"frames {missing.nonzero().flatten().tolist()} without joints"
        raise _check.fail("torques", "a clip without missing frames (fill_frames)", frames)
    model = model or body_model(layout, sex, mass=mass, joints=x)
    q = unwrapped(model.coordinates(x), ["about" in name for name in model.names])
    motion = derivatives(q, fps, window)
    return Torques(inverse_dynamics(model.tree.to(x), *motion, gravity), motion, model)
