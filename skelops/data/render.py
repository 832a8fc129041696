"""Pictures of skeletons: bodies of capsules before an orthographic camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from skelops import _check
from skelops.data.dataset import Batch, ClipDataset
from skelops.data.transform import SENSORS
from skelops.graph import Layout, get_layout
from skelops.ops import random_uniform

MODALITIES = ("rgb", "depth", "infrared", "skeleton", "keypoints")
JOINTS = ("skeleton", "keypoints")  # the modalities that are no pictures
EXTENT = 1.2  # metres from the centre of a picture to its border
RADIUS = 0.075  # of a limb
FAR = 3.0  # metres from the centre of the scene to the background, behind it


def render(
    x: Tensor,
    layout: str | Layout = "ntu25",
    modalities: Sequence[str] = MODALITIES,
    *,
    size: int = 32,
    extent: float = EXTENT,
    radius: float = RADIUS,
) -> dict[str, Tensor]:
    """Show clips as several sensors would, in step and in place with one another.

    A bone is a capsule of its own colour, lit from the camera, which looks along +z; y points up.
    Who is all zero in a frame is absent. The camera is orthographic, and its picture is centred on
    the origin.

    Args:
        x: (N, 3, T, V, M), metres.
        layout: joints and bones.
        modalities: what to return.
        size: S, height and width in pixels.
        extent: metres from the centre to the border of a picture.
        radius: of a limb, metres.

    Returns:
        "rgb" (N, 3, T, S, S) in [0, 1]; "depth" (N, 1, T, S, S), metres in front of the background,
        0 there; "infrared" (N, 1, T, S, S), brightness that falls with the distance; "skeleton", x;
        "keypoints" (N, 3, T, V, M), x and y in [-1, 1] of the picture and score 1, or 0 if absent.

    Raises:
        ValueError: shapes do not fit, or an unknown modality.

    Example:
        >>> from skelops.data import render, synthetic
        >>> joints = torch.from_numpy(synthetic.generate(16).xyz[:8])    # (T, M, V, 3)
        >>> joints -= joints[:1, :1, :1]
        >>> pictures = render(joints.permute(3, 0, 2, 1)[None], size=64)
        >>> pictures["depth"].shape
        torch.Size([1, 1, 8, 64, 64])
    """
    layout = get_layout(layout)
    sizes = {"3": 3, "V": layout.num_joints}
    _check.shape("render", "x", x, "N 3 T V M", **sizes)
    for name in modalities:
        if name not in MODALITIES:
            raise _check.fail("render", f"modalities of {', '.join(MODALITIES)}", repr(name))
    joints = x.permute(0, 2, 4, 3, 1)  # (N, T, M, V, 3)
    present = (joints != 0).any(-1).any(-1)
    made: dict[str, Tensor] = {"skeleton": x}
    if "keypoints" in modalities:
        place = joints[..., :2] / extent * joints.new_tensor([1, -1])
        score = present[..., None, None].expand(*joints.shape[:4], 1)
        made["keypoints"] = torch.cat([place, score.to(x.dtype)], -1).permute(0, 4, 1, 3, 2)
    if {"rgb", "depth", "infrared"} & set(modalities):
        made |= _pictures(joints, present, layout, size, extent, radius)
    return {name: made[name] for name in modalities}


def _pictures(
    joints: Tensor, present: Tensor, layout: Layout, size: int, extent: float, radius: float
) -> dict[str, Tensor]:
    (N, T, M), device, E = present.shape, joints.device, len(layout.bones)
    ends = torch.tensor(layout.bones, device=device)
    shown = (present.flatten().nonzero() * E + torch.arange(E, device=device)).flatten()
    a, b = (joints[:, :, :, ends[:, i]].flatten(0, 3)[shown] for i in range(2))  # (B, 3)
    capsule, column, row = _boxes(a[:, :2], b[:, :2], size, extent, radius)
    pixel = (shown // (M * E))[capsule] * size**2 + row * size + column

    line = b - a
    square = (line[:, 0].square() + line[:, 1].square()).clamp(min=1e-9)
    a, line, square = a[capsule], line[capsule], square[capsule]
    at = ((torch.arange(size, device=device, dtype=a.dtype) + 0.5) * 2 / size - 1) * extent
    from_x, from_y = at[column] - a[:, 0], -at[row] - a[:, 1]
    across = from_x * line[:, 0] + from_y * line[:, 1]
    along = (across / square).clamp(0, 1)
    beside = from_x.square() + from_y.square() - along * (2 * across - along * square)
    swell = (1 - beside / radius**2).clamp(min=0).sqrt()  # also how squarely light falls
    depth = a[:, 2] + along * line[:, 2] - radius * swell

    depth = depth.masked_fill(beside >= radius**2, FAR)
    z = depth.new_full((N * T * size**2,), FAR).scatter_reduce(0, pixel, depth, "amin")
    front = ((depth == z[pixel]) & (depth < FAR)).nonzero().flatten()
    nearest = torch.full_like(z, len(depth), dtype=torch.int64)  # the first of equally near ones
    nearest = nearest.scatter_reduce(0, pixel[front], front, "amin")
    body = nearest < len(depth)
    nearest = nearest[body]
    light, rgb = torch.zeros_like(z), z.new_full((len(z), 3), 0.15)
    light[body] = swell[nearest]
    colour = _colours(E).to(z)[shown[capsule[nearest]] % E]
    rgb[body] = colour * (0.3 + 0.7 * light[body, None])
    z, light, rgb = (t.unflatten(0, (N, T, size, size)) for t in (z, light, rgb))
    return {
        "rgb": rgb.permute(0, 4, 1, 2, 3),
        "depth": (FAR - z).unsqueeze(1),
        "infrared": (light / (1 + (z + extent).clamp(min=0) / extent)).unsqueeze(1),
    }


def _boxes(
    a: Tensor, b: Tensor, size: int, extent: float, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels in the bounding boxes of capsules from a to b (B, 2): capsule, column and row."""
    flip = a.new_tensor([1, -1])  # columns to the right, rows down
    a, b = a * flip, b * flip
    low, high = torch.minimum(a, b) - radius, torch.maximum(a, b) + radius
    first = ((low / extent + 1) * size / 2 - 0.5).floor().clamp(0, size).nan_to_num().long()
    last = ((high / extent + 1) * size / 2 + 0.5).ceil().clamp(0, size).nan_to_num().long()
    wide = last - first
    count = wide.prod(-1)
    capsule = torch.arange(len(count), device=a.device).repeat_interleave(count)
    within = torch.arange(len(capsule), device=a.device) - (count.cumsum(0) - count)[capsule]
    width = wide[capsule, 0]
    return capsule, first[capsule, 0] + within % width, first[capsule, 1] + within // width


def _colours(bones: int) -> Tensor:
    """(E, 3) around the colour circle."""
    turn = torch.arange(bones)[:, None] / bones + torch.tensor([0.0, 1 / 3, 2 / 3])
    return 0.55 + 0.45 * torch.cos(2 * torch.pi * turn)


class RenderedDataset(ClipDataset):
    """Clips as pictures: the samples of a :class:`ClipDataset`, and what sensors see of them.

    x of a batch is a mapping of modalities, see :func:`render`; they share the augmentation.

    Args:
        args, options: of :class:`ClipDataset`, with 3-D joints as the only stream.
        modalities: as of :func:`render`.
        image_size: S.
        degrade: how bad a sensor is, in training and test: of pictures the standard deviation of
            their noise, of "skeleton" and "keypoints" the share of joints that are lost, in every
            frame anew.

    Raises:
        ValueError: as :class:`ClipDataset` and :func:`render`, and for other streams.
    """

    def __init__(
        self,
        *args: Any,
        modalities: Sequence[str],
        image_size: int = 32,
        degrade: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if list(self.streams.names) != ["joint"]:
            raise _check.fail("RenderedDataset", "the stream joint", list(self.streams.names))
        for name in modalities:
            if name not in MODALITIES:
                expected = f"modalities of {', '.join(MODALITIES)}"
                raise _check.fail("RenderedDataset", expected, repr(name))
        self.modalities, self.image_size = tuple(modalities), image_size
        self.degrade = dict(degrade or {})
        for name, amount in self.degrade.items():
            if name not in modalities:
                expected = f"degrade of {', '.join(modalities)}"
                raise _check.fail("RenderedDataset", expected, repr(name))
            if amount < 0 or (name in JOINTS and amount > 1):
                expected = f"degrade of {name} {'in [0, 1]' if name in JOINTS else '>= 0'}"
                raise _check.fail("RenderedDataset", expected, amount)

    def __getitems__(self, draws: Sequence[int] | Tensor) -> Batch:
        x, y, clip = super().__getitems__(draws)
        shown = render(x, self.geometry.layout, self.modalities, size=self.image_size)
        draw = torch.as_tensor(draws, dtype=torch.int64).to(x.device)
        for name, amount in self.degrade.items():
            shown[name] = self._degraded(name, shown[name], amount, draw)
        return Batch(shown, y, clip)  # type: ignore[arg-type]

    def _degraded(self, name: str, x: Tensor, amount: float, draw: Tensor) -> Tensor:
        key: dict[str, int] = {"seed": self.seed, "stream": SENSORS + MODALITIES.index(name)}
        if name in JOINTS:
            T, V, M = x.shape[2:]
            found = random_uniform(draw, T * V * M, **key).view(-1, 1, T, V, M) >= amount
            return x * found
        u, v = random_uniform(draw, 2 * x[0].numel(), **key).view(len(x), 2, -1).unbind(1)
        normal = (-2 * (1 - u).log()).sqrt() * (2 * torch.pi * v).cos()
        return x + amount * normal.view_as(x).to(x.dtype)

    def __getitem__(self, draw: int) -> Batch:
        x, y, clip = self.__getitems__([draw])
        return Batch({name: t[0] for name, t in x.items()}, y[0], clip[0])  # type: ignore
