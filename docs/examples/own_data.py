"""Recordings of a pose estimator to a trained network: here the landmarks of MediaPipe Pose.

One JSON file per clip, in a directory per class. For lack of a camera the files are made from
synthetic clips; with your own, leave out ``write_recordings``.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

import lightning

from skelops.data import Clips, synthetic
from skelops.data.convert import convert
from skelops.data.formats import open_source
from skelops.graph import conversion
from skelops.train import Recognizer, SkeletonDataModule

ACTIONS = (0, 4, 6, 12)
KEYS = ("x", "y", "z", "visibility")


def write_recordings(folder: Path) -> None:
    """``folder/CLASS/CLIP.json``: a list of frames, each with 33 landmarks."""
    clips = synthetic.generate(384)
    index, weight = (t.numpy() for t in conversion(clips.layout, "mediapipe33"))
    for i in range(len(clips)):
        if clips.label[i] not in ACTIONS:
            continue
        joints = (clips[i][:, 0, index] * weight[..., None]).sum(-2)  # (T, 33, 3)
        frames = [
            [dict(zip(KEYS, (*map(float, joint), 1.0), strict=True)) for joint in frame]
            for frame in joints
        ]
        file = folder / clips.classes[clips.label[i]] / f"{i:03}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "recordings")

        recordings = open_source(folder / "recordings", num_persons=1)
        convert(recordings, folder / "mine.clips", workers=1, progress=False)
        clips = Clips.open(folder / "mine.clips")
        print(f"{len(clips)} clips of {clips.layout}: {', '.join(clips.classes)}")

        lightning.seed_everything(0, verbose=False)
        data = SkeletonDataModule(
            str(folder / "mine.clips"), "random", window=32, batch_size=16, repeat=2
        )
        network = {"base_channels": 16, "stages": [(16, 1), (32, 2), (32, 2)]}
        model = Recognizer(
            "st_gcn_pp", data.num_classes, data.layout, data.num_persons, network,
            in_channels=data.in_channels, lr=0.05, warmup_epochs=1, schedule="cosine",
        )  # fmt: skip
        trainer = lightning.Trainer(
            max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, data)
        top1 = trainer.test(model, data, verbose=False)[0]["test_top1"]
        print(f"top-1 of the clips set aside: {100 * top1:.0f} %")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()
