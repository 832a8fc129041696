"""Scores while the landmarks of MediaPipe Pose come in, frame by frame.

For lack of a camera the landmarks are those of a synthetic clip, some of them hidden, and the
network is not trained: put your checkpoint and your camera in the places of ``network`` and
``camera``.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple

import numpy as np
from torch import nn

from skelops.data import synthetic
from skelops.graph import conversion
from skelops.models import create_model
from skelops.stream import Recognizer


class Landmark(NamedTuple):
    """As in MediaPipe's ``pose_world_landmarks``."""

    x: float
    y: float
    z: float
    visibility: float


def network() -> nn.Module:
    return create_model(
        "st_gcn_pp", num_classes=16, layout="mediapipe33", num_persons=1, base_channels=32
    )


def camera() -> Iterator[list[Landmark]]:
    clips, rng = synthetic.generate(16), np.random.default_rng(0)
    index, weight = (t.numpy() for t in conversion(clips.layout, "mediapipe33"))
    for frame in clips[4][:, 0]:
        joints = (frame[index] * weight[..., None]).sum(-2)
        yield [Landmark(*joint, rng.uniform(0.3, 1)) for joint in joints.tolist()]


def joints_of(landmarks: list[Landmark]) -> np.ndarray:
    """(33, 3), NaN where a joint is hidden: it then keeps the place where it was seen last."""
    points = np.array(landmarks, np.float32)
    return np.where(points[:, 3:] < 0.5, np.nan, points[:, :3])


def main() -> None:
    recognizer = Recognizer(network(), "mediapipe33", window=48, stride=8)
    times = []
    for landmarks in camera():
        begin = perf_counter()
        prediction = recognizer.update(joints_of(landmarks))
        times.append(1e3 * (perf_counter() - begin))
        if prediction is not None:
            best = int(prediction.scores.argmax())
            print(f"frame {prediction.frame:3}: class {best:2}, {prediction.scores[best]:.2f}")
    print(f"{np.mean(times):.1f} ms per frame, {np.max(times):.1f} ms at most")


if __name__ == "__main__":
    main()
