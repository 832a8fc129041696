"""Torques at the joints of somebody in a clip: body model, smoothing, inverse dynamics."""

import torch

from skelops import dynamics
from skelops.data import synthetic


def main() -> None:
    clips = synthetic.generate(48)
    sitting = next(i for i in range(len(clips)) if clips.classes[clips.label[i]] == "sit down")
    clip = torch.from_numpy(clips[sitting][:, 0]).double()  # (T, 25, 3) of the first person
    seen = (clip != 0).any(-1).all(-1)
    found = dynamics.torques(clip[seen], fps=clips.fps, layout=clips.layout, mass=70)

    print(f"{clips.classes[clips.label[sitting]]}, {int(seen.sum())} frames")
    knees = [i for i, name in enumerate(found.model.names) if "shank_about_x" in name]
    for i in knees:
        largest = found.tau[:, i].abs().max()
        swept = torch.rad2deg(found.motion.q[:, i].max() - found.motion.q[:, i].min())
        print(
            f"{found.model.names[i]:24} moves by {swept:5.1f} degrees, at most {largest:6.1f} N m"
        )


if __name__ == "__main__":
    main()
