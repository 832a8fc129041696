"""Reading NTU RGB+D ``.skeleton`` files: the C++ parser, its NumPy twin and a plain line reader.

python -m benchmarks.data.ntu_reader [directory of .skeleton files]

CPU time of one thread; without a directory, of text made up with the digits of real files.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from skelops.data.formats import ntu

SECONDS = 2.0


def made_up(frames: int = 100, bodies: int = 1) -> bytes:
    """Text of one file as the Kinect's software writes it, with seven significant digits."""
    rng = np.random.default_rng(0)
    scale = (1, 1, 1, *[500] * 4, *[1] * 4)
    lines = [f"{frames}\r\n"]
    for _ in range(frames):
        lines.append(f"{bodies}\r\n")
        for body, joints in enumerate(rng.normal(size=(bodies, 25, 11)) * scale):
            lines.append(f"{72057594037931648 + body} 0 1 1 1 1 0 -0.1159187 0.1413209 2\r\n25\r\n")
            lines += [" ".join(f"{x:.7g}" for x in row) + " 2\r\n" for row in joints]
    return "".join(lines).encode()


KEYS = ("x", "y", "z", "depth_x", "depth_y", "colour_x", "colour_y", "w", "i", "j", "k", "state")


def plain(data: bytes) -> list[list[dict]]:
    """Line by line and number by number into dictionaries, as ST-GCN reads."""
    file = io.StringIO(data.decode())
    frames = []
    for _ in range(int(file.readline())):
        bodies = []
        for _ in range(int(file.readline())):
            name, *state = file.readline().split()
            joints = [
                dict(zip(KEYS, map(float, file.readline().split()), strict=True))
                for _ in range(int(file.readline()))
            ]
            bodies.append({"id": name, "state": list(map(float, state)), "joints": joints})
        frames.append(bodies)
    return frames


def plain_arrays(data: bytes) -> dict[str, dict[str, np.ndarray]]:
    """Line by line, five of the twelve numbers, into arrays that grow, as CTR-GCN reads."""
    lines = io.StringIO(data.decode()).readlines()
    at, bodies = 1, {}
    for _ in range(int(lines[0].strip())):
        count, at = int(lines[at].strip()), at + 1
        for _ in range(count):
            name = lines[at].split()[0]
            joints, colours = np.zeros((25, 3), np.float32), np.zeros((1, 25, 2), np.float32)
            for j in range(int(lines[at + 1].strip())):
                tokens = lines[at + 2 + j].split()
                joints[j] = np.array(tokens[:3], np.float32)
                colours[0, j] = np.array(tokens[5:7], np.float32)
            at += 2 + 25
            if name in bodies:
                joints = np.vstack((bodies[name]["joints"], joints))
                colours = np.vstack((bodies[name]["colours"], colours))
            bodies[name] = {"joints": joints, "colours": colours}
    return bodies


def megabytes_per_second(read: Callable[[bytes], object], texts: Sequence[bytes]) -> float:
    """Bytes read in SECONDS of CPU time, and at least once."""
    size, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < SECONDS:
        for text in texts:
            read(text)
            size += len(text)
    return size / spent / 1e6


def main(arguments: Sequence[str]) -> None:
    if arguments:
        texts = [file.read_bytes() for file in sorted(Path(arguments[0]).rglob("*.skeleton"))]
    else:
        texts = [made_up(), made_up(70, bodies=2)]
    print(f"{len(texts)} files of {np.mean([len(text) for text in texts]) / 1e3:.0f} kB on average")
    readers: dict[str, Callable[[bytes], object]] = {
        "plain": plain,
        "plain, 5 of 12 numbers": plain_arrays,
        "numpy twin": ntu._parse,
    }
    if ntu._host is not None:
        readers["native"] = ntu._host.parse_ntu_skeleton
        readers["native, denoised, centred"] = lambda text: ntu.centre(ntu.denoise(ntu.parse(text)))
    speeds = {name: megabytes_per_second(read, texts) for name, read in readers.items()}
    for name, speed in speeds.items():
        print(f"{name:26} {speed:8.1f} MB/s {speed / speeds['plain']:6.1f}x")


if __name__ == "__main__":
    main(sys.argv[1:])
