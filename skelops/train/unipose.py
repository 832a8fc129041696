"""UniPose's weakly supervised training, on generated RGB-D sequences.

    python -m skelops.train.unipose --out runs/unipose

Bodies of capsules move as the synthetic action set does and are seen by a depth and a colour
camera. Nothing of their pose in space is used but to measure the error: the first stage trains a
network on point clouds from noisy joints in the image, the second trains networks on depth and
colour from what the first says. Real sequences take the same functions with a ``Sequences`` of
their own.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from skelops.camera import Camera
from skelops.data import synthetic
from skelops.data.capsules import colour, render, sample_cloud
from skelops.models.a2j import a2j_space_loss
from skelops.models.unipose import (
    ITOP15,
    LiftPose,
    PointPose,
    to_crop,
    to_space,
    trusted,
    weak_loss,
)

SIZE = 64
CAMERA = Camera(80.0, 80.0, (SIZE - 1) / 2, (SIZE - 1) / 2)
SCALE = SIZE / 2.0  # of depth in a crop, per metre
NTU25_JOINTS = (3, 2, 8, 4, 9, 5, 11, 7, 1, 16, 12, 17, 13, 19, 15)  # in the order of ITOP's
# Of the bone that leads to each joint, metres; the torso has none of its own.
RADII = {
    "head": 0.09, "neck": 0.13, "shoulder": 0.06, "elbow": 0.05, "hand": 0.04, "hip": 0.10,
    "knee": 0.075, "foot": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Sequences:
    """B sequences of T frames that a camera saw, with what a 2-D estimator says about them."""

    clouds: Tensor  # (B, T, L, 3)
    depth: Tensor  # (B, T, H, W)
    rgb: Tensor  # (B, T, 3, H, W)
    pixels: Tensor  # (B, T, V, 2)
    confidence: Tensor  # (B, T, V)
    joints: Tensor  # (B, T, V, 3), for measuring only

    def __getitem__(self, index: Tensor | slice) -> Sequences:
        return Sequences(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.clouds)

    def observed(self) -> Tensor:
        """Depth (B, T, V) at the pixels of the joints, 0 outside the image."""
        H, W = self.depth.shape[2:]
        column, row = self.pixels.round().long().unbind(-1)
        inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
        index = row.clamp(0, H - 1) * W + column.clamp(0, W - 1)
        return self.depth.flatten(2).gather(2, index) * inside


def generate(
    clips: int, seed: int = 0, per_clip: int = 6, frames: int = 3, step: int = 2, points: int = 256,
    pixel_noise: float = 1.0,
) -> Sequences:  # fmt: skip
    """Sequences of the synthetic action set (16 clips or more), the person in the middle."""
    source = synthetic.generate(clips, seed, sensor=False)
    windows = []
    for begin, length in zip(np.cumsum(source.length) - source.length, source.length, strict=True):
        starts = np.linspace(0, length - 1 - (frames - 1) * step, per_clip).astype(int)
        windows += [begin + s + np.arange(frames) * step for s in starts]
    joints = torch.from_numpy(source.xyz[np.stack(windows), 0][:, :, list(NTU25_JOINTS)]).float()
    # The set has y up; a crop has the person's trunk in its middle, three metres away.
    joints = joints * joints.new_tensor([1, -1, 1])
    trunk = joints[:, :, 8].mean(1)[:, None, None]
    joints = joints - trunk + joints.new_tensor([0, 0, 3])
    generator = torch.Generator().manual_seed(seed)
    ends = [v for v, parent in enumerate(ITOP15.parents) if parent != v]
    bones = [(ITOP15.parents[v], v) for v in ends]
    radii = [RADII[ITOP15.joint_names[v].split("_")[-1]] for v in ends]
    palette = torch.rand(len(bones), 3, generator=generator)
    seen = [
        render(part, bones, radii, CAMERA, (SIZE, SIZE)) for part in joints.flatten(0, 1).split(16)
    ]
    depth = torch.cat([image.depth for image in seen])
    rgb = torch.cat([colour(image, palette) for image in seen])
    cloud = sample_cloud(depth, CAMERA, points, torch.rand(depth.shape, generator=generator))
    cloud = cloud + 0.005 * torch.randn(cloud.shape, generator=generator)
    pixels, _ = CAMERA.project(joints)
    pixels = pixels + pixel_noise * torch.randn(pixels.shape, generator=generator)
    shape = joints.shape[:2]
    return Sequences(
        cloud.unflatten(0, shape), depth.unflatten(0, shape), rgb.unflatten(0, shape), pixels,
        torch.ones(pixels.shape[:-1]), joints,
    )  # fmt: skip


def mpjpe(joints: Tensor, truth: Tensor) -> float:
    """Mean distance of joints, millimetres."""
    return 1000 * (joints - truth).norm(dim=-1).mean().item()


def train(
    model: nn.Module,
    data: Sequences,
    test: Sequences,
    loss: Callable[[Sequences], Tensor],
    predict: Callable[[Sequences], Tensor],
    steps: int,
    batch: int = 12,
    lr: float = 2e-3,
    every: int = 25,
    seed: int = 0,
) -> list[tuple[int, float, float]]:
    """Adam with one cosine decay; rows of step, mean training loss, test error in millimetres."""
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    rows, losses = [], []
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            model.eval()
            with torch.no_grad():
                error = mpjpe(predict(test), test.joints)
            mean = sum(losses) / len(losses) if losses else float("nan")
            rows.append((step, mean, error))
            losses = []
        if step < steps:
            model.train()
            value = loss(data[torch.randint(len(data), (batch,), generator=generator)])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
    return rows


def predict_clouds(model: PointPose, data: Sequences) -> Tensor:
    """(B, T, V, 3)"""
    return model(data.clouds.flatten(0, 1)).unflatten(0, data.clouds.shape[:2])


def image_of(data: Sequences, modality: str) -> tuple[Tensor, Tensor]:
    """Frames (B T, C, H, W) as a network takes them, and the depth (B T,) that theirs is from."""
    clouds, depth = data.clouds.flatten(0, 1), data.depth.flatten(0, 1)
    origin = clouds[..., 2].median(1).values
    if modality == "rgb":
        return data.rgb.flatten(0, 1) * 2 - 1, origin
    near = (depth - origin[:, None, None]) * 2
    return torch.where(depth > 0, near, 1.0)[:, None], origin


def first_stage(data: Sequences, test: Sequences, steps: int) -> tuple[PointPose, list]:
    """A network on point clouds, from joints in the image."""
    model = PointPose(centers=(64, 16), radii=(0.25, 0.5), k=16, width=32)

    def loss(part: Sequences) -> Tensor:
        joints = predict_clouds(model, part)
        return weak_loss(joints, part.pixels, part.confidence, part.observed(), CAMERA)

    return model, train(model, data, test, loss, lambda part: predict_clouds(model, part), steps)


def second_stage(
    data: Sequences, test: Sequences, teacher: PointPose, modality: str, steps: int
) -> tuple[LiftPose, list]:
    """A network on images, from what the first stage's says where that agrees with the image."""
    channels = {"depth": 1, "rgb": 3}[modality]
    model = LiftPose(15, channels, "both", blocks=(1, 1, 1, 1), width=16, tower_width=64)
    teacher.eval()

    def votes(part: Sequences):
        image, origin = image_of(part, modality)
        return model(image, part.pixels.flatten(0, 1)), origin

    def loss(part: Sequences) -> Tensor:
        with torch.no_grad():
            said = predict_clouds(teacher, part).flatten(0, 1)
            valid = trusted(said, part.pixels.flatten(0, 1), CAMERA)
        found, origin = votes(part)
        target = to_crop(said, CAMERA, origin, SCALE, SIZE / 2)
        anchor, regression = a2j_space_loss(*found, target, valid)
        return anchor + 3 * regression

    def predict(part: Sequences) -> Tensor:
        found, origin = votes(part)
        joints = to_space(found.joints(), CAMERA, origin, SCALE, SIZE / 2)
        return joints.unflatten(0, part.clouds.shape[:2])

    return model, train(model, data, test, loss, predict, steps)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m skelops.train.unipose", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("runs/unipose"))
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--test_clips", type=int, default=12)
    parser.add_argument("--per_clip", type=int, default=6, help="sequences of a clip")
    parser.add_argument("--steps", type=int, default=300, help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    # Other clips of other bodies.
    data = generate(options.clips, options.seed, options.per_clip)
    test = generate(options.test_clips, options.seed + 1, options.per_clip)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "metrics.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(("stage", "step", "loss", "test_mpjpe_mm"))

        def write(stage: str, rows: list) -> None:
            for step, loss, error in rows:
                log.writerow((stage, step, f"{loss:.5f}", f"{error:.1f}"))
                print(f"{stage:10} step {step:5} loss {loss:9.5f} test MPJPE {error:7.1f} mm")
            file.flush()

        teacher, rows = first_stage(data, test, options.steps)
        write("cloud", rows)
        networks: dict[str, nn.Module] = {"cloud": teacher}
        for modality in ("depth", "rgb"):
            networks[modality], rows = second_stage(data, test, teacher, modality, options.steps)
            write(modality, rows)
    for name, network in networks.items():
        torch.save(network.state_dict(), options.out / f"{name}.pt")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
