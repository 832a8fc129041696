"""NTU RGB+D 60 and 120: raw ``.skeleton`` files, denoised and centred by the published rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skelops.data.formats._base import Clip, Format, register_format
from skelops.data.formats._files import read_text
from skelops.data.formats._text import FLOAT32_MAX, Lines, named

try:
    from skelops import _host
except ImportError:
    _host = None

NTU120_CLASSES = (
    "drink water", "eat meal/snack", "brushing teeth", "brushing hair", "drop", "pickup", "throw",
    "sitting down", "standing up (from sitting position)", "clapping", "reading", "writing",
    "tear up paper", "wear jacket", "take off jacket", "wear a shoe", "take off a shoe",
    "wear on glasses", "take off glasses", "put on a hat/cap", "take off a hat/cap", "cheer up",
    "hand waving", "kicking something", "reach into pocket", "hopping (one foot jumping)",
    "jump up", "make a phone call/answer phone", "playing with phone/tablet",
    "typing on a keyboard", "pointing to something with finger", "taking a selfie",
    "check time (from watch)", "rub two hands together", "nod head/bow", "shake head", "wipe face",
    "salute", "put the palms together", "cross hands in front (say stop)", "sneeze/cough",
    "staggering", "falling", "touch head (headache)", "touch chest (stomachache/heart pain)",
    "touch back (backache)", "touch neck (neckache)", "nausea or vomiting condition",
    "use a fan (with hand or paper)/feeling warm", "punching/slapping other person",
    "kicking other person", "pushing other person", "pat on back of other person",
    "point finger at the other person", "hugging other person",
    "giving something to other person", "touch other person's pocket", "handshaking",
    "walking towards each other", "walking apart from each other", "put on headphone",
    "take off headphone", "shoot at the basket", "bounce ball", "tennis bat swing",
    "juggling table tennis balls", "hush", "flick hair", "thumb up", "thumb down", "make ok sign",
    "make victory sign", "staple book", "counting money", "cutting nails",
    "cutting paper (using scissors)", "snapping fingers", "open bottle", "sniff (smell)",
    "squat down", "toss a coin", "fold paper", "ball up paper", "play magic cube",
    "apply cream on face", "apply cream on hand back", "put on bag", "take off bag",
    "put something into a bag", "take something out of a bag", "open a box", "move heavy objects",
    "shake fist", "throw up cap/hat", "hands up (both hands)", "cross arms", "arm circles",
    "arm swings", "running on the spot", "butt kicks (kick backward)", "cross toe touch",
    "side kick", "yawn", "stretch oneself", "blow nose", "hit other person with something",
    "wield knife towards other person", "knock over other person (hit with body)",
    "grab other person's stuff", "shoot at other person with a gun", "step on foot", "high-five",
    "cheers and drink", "carry something with other person", "take a photo of other person",
    "follow other person", "whisper in other person's ear", "exchange things with other person",
    "support somebody with hand", "finger-guessing game (playing rock-paper-scissors)",
)  # fmt: skip
NTU60_CLASSES = NTU120_CLASSES[:60]
_NTU60_SETUPS = 17

JOINTS = 25
NUMBERS_OF_A_JOINT = 12
NUMBERS_OF_A_BODY = 9

SHORTEST = 12  # frames of a body that is no noise
WIDEST = 0.8  # extent in x over extent in y of a plausible pose
WIDE_SHARE = 0.69754  # share of implausible poses that makes a body noise
SPINE = 1  # the joint that becomes the origin

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


# The text of a file


class Skeleton(NamedTuple):
    """What a ``.skeleton`` file holds: T frames with B observed bodies in the order of the file.

    ``bodies`` (T,) int64 counts the bodies of a frame; ``id`` (B,) uint64 is the tracker's number
    of a body. ``state`` (B, 9) float64: clipped edges, confidence and state of the left hand, then
    of the right hand, restricted, lean x, lean y, tracking state. ``joints`` (B, 25, 12) float64:
    x, y, z in metres, pixel x, y of the depth image, pixel x, y of the colour image, orientation
    w, x, y, z, tracking state (0 lost, 1 inferred, 2 tracked).
    """

    bodies: np.ndarray
    id: np.ndarray
    state: np.ndarray
    joints: np.ndarray


def parse(data: bytes) -> Skeleton:
    """Parse the text of a ``.skeleton`` file, in C++ where ``skelops._host`` is built.

    Numbers are exactly those of Python's ``float``. A frame may hold any number of bodies; counts
    are believed only as far as the text goes.

    Raises:
        ValueError: damaged text: a missing, short or long line, what is no number, coordinates
            that are not finite, not 25 joints, text after the last frame; the message names the
            line.
    """
    return Skeleton(*(_parse if _host is None else _host.parse_ntu_skeleton)(data))


def read_skeleton(path: str | Path) -> Skeleton:
    """:func:`parse` a file; errors name it.

    Raises:
        ValueError: damaged text; the message names file and line.
    """
    return named(path, parse, Path(path).read_bytes())


def _parse(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What ``skelops._host.parse_ntu_skeleton`` does, errors included."""
    lines = Lines(data)
    bodies, ids, states, joints = [], [], [], []
    for _ in range(lines.count("a number of frames")):
        count = lines.count("a number of bodies")
        for _ in range(count):
            expected = "a body id and 9 numbers"
            tokens = lines.next()
            if not tokens or not tokens[0].isdigit() or len(tokens[0]) > 19:
                raise lines.error(expected)
            ids.append(int(tokens[0]))
            states.append(lines.numbers(tokens[1:], NUMBERS_OF_A_BODY, expected))
            if lines.count("25 joints") != JOINTS:
                raise lines.error("25 joints")
            for _ in range(JOINTS):
                joint = lines.numbers(lines.next(), NUMBERS_OF_A_JOINT, "12 numbers of a joint")
                if not all(abs(x) <= FLOAT32_MAX for x in joint[:3]):
                    raise lines.error("x, y and z of a joint in the range of float32")
                joints.append(joint)
        bodies.append(count)
    while lines.number < len(lines.lines):
        if lines.next():
            raise lines.error("the end of the file")
    return (
        np.array(bodies, np.int64),
        np.array(ids, np.uint64),
        np.array(states, np.float64).reshape(-1, NUMBERS_OF_A_BODY),
        np.array(joints, np.float64).reshape(-1, JOINTS, NUMBERS_OF_A_JOINT),
    )


# The published rules


class Track(NamedTuple):
    """One tracked body: ``joints`` (n, 25, 3) float32 of the frames from ``start`` on."""

    start: int
    joints: np.ndarray
    motion: float


def motion(joints: np.ndarray) -> float:
    """Motion energy of joints (n, 25, 3): the variances of x, y and z over all points, summed."""
    return np.var(joints.reshape(-1, 3), axis=0).sum()


def first_two(skeleton: Skeleton) -> np.ndarray:
    """The two bodies that appear first, (T, 2, 25, 3) float32, zero where one is not seen."""
    frame, person = _observations(skeleton)
    kept = person < 2
    xyz = np.zeros((len(skeleton.bodies), 2, JOINTS, 3), np.float32)
    xyz[frame[kept], person[kept]] = skeleton.joints[kept, :, :3]
    return xyz


def tracks(skeleton: Skeleton) -> list[Track]:
    """The bodies of a file by id, in the order in which they appear.

    Frames without any body are not counted. As published, a track is taken to be without gaps: a
    body that was lost and found again continues where it was lost.
    """
    frame, person = _observations(skeleton)
    if not len(person):
        return []
    seen = np.cumsum(skeleton.bodies > 0) - 1
    order = np.argsort(person, kind="stable")
    cuts = np.flatnonzero(np.diff(person[order])) + 1
    return [
        Track(int(seen[frame[one[0]]]), joints, motion(joints))
        for one in np.split(order, cuts)
        for joints in [skeleton.joints[one, :, :3].astype(np.float32)]
    ]


def drop_short(tracks: Sequence[Track]) -> list[Track]:
    """Without bodies of at most 11 frames."""
    return [track for track in tracks if len(track.joints) >= SHORTEST]


def drop_wide(tracks: Sequence[Track]) -> list[Track]:
    """Without bodies that are wider than high, which are furniture, but never without all.

    A pose is implausible if its extent in x exceeds 0.8 of that in y; a body goes if a share of
    0.69754 of its poses is. Of those that stay, the motion is that of the plausible poses if that
    is less.
    """
    kept: list[Track] = []
    left = len(tracks)
    for track in tracks:
        extent = np.ptp(track.joints, axis=1)
        wide = extent[:, 0] > WIDEST * extent[:, 1].astype(np.float64)
        if left > 1 and wide.mean() >= WIDE_SHARE:
            left -= 1
        elif left > 1 and wide.any():
            kept.append(track._replace(motion=min(track.motion, motion(track.joints[~wide]))))
        else:
            kept.append(track)
    return kept


def by_motion(tracks: Sequence[Track]) -> list[Track]:
    """The body that moves most first."""
    return sorted(tracks, key=lambda track: track.motion, reverse=True)


def merge_actors(tracks: Sequence[Track], frames: int) -> np.ndarray:
    """Bodies, the main one first, as at most two actors: (frames, 2, 25, 3), zero where unseen.

    The first body is the first actor. Each further body continues the first actor whose span of
    frames it shares at most one frame with; one that overlaps both is left out.
    """
    xyz = np.zeros((frames, 2, JOINTS, 3), np.float32)
    span = [(tracks[0].start, tracks[0].start), (0, 0)]
    for track in tracks:
        start, end = track.start, track.start + len(track.joints) - 1
        for actor, (first, last) in enumerate(span):
            if min(last, end) - max(first, start) <= 0:
                xyz[start : end + 1, actor] = track.joints
                span[actor] = (min(first, start), max(last, end))
                break
    return xyz


def unseen(xyz: np.ndarray) -> np.ndarray:
    """(T, M): where the coordinates of (T, M, V, 3) sum to zero, the published test of absence."""
    return xyz.reshape(*xyz.shape[:2], -1).sum(axis=2) == 0


def drop_empty_frames(xyz: np.ndarray) -> np.ndarray:
    """Without the frames of (T, M, 25, 3) in which nobody is seen."""
    return xyz[~unseen(xyz.reshape(len(xyz), 1, -1, 3))[:, 0]]


def denoise(skeleton: Skeleton) -> np.ndarray:
    """The actors of a file by the published rules, (T, M, 25, 3) float32 with M 1 or 2.

    A body alone stays as it is. Of several, those of at most 11 frames and those that are wider
    than high are dropped, the others merged into two actors, the one that moves most first, and
    frames without either are cut out. T is 0 where nothing is left.
    """
    bodies = tracks(skeleton)
    if len(bodies) == 1:
        return bodies[0].joints[:, None]
    kept = by_motion(drop_wide(drop_short(bodies)))
    if not kept:
        return np.zeros((0, 1, JOINTS, 3), np.float32)
    xyz = merge_actors(kept, int(np.count_nonzero(skeleton.bodies)))
    return drop_empty_frames(xyz[:, : min(len(kept), 2)])


def centre(xyz: np.ndarray) -> np.ndarray:
    """Move (T, M, 25, 3) so that the first actor's spine starts in the origin.

    The origin is the middle of the spine in the first frame with the first actor. Of two actors,
    one who is not seen in a frame stays zero there.
    """
    seen = xyz[:, 0].any(axis=(1, 2))
    moved = xyz - xyz[seen.argmax(), 0, SPINE]
    if xyz.shape[1] == 2:
        moved[unseen(xyz)] = 0
    return moved


def _observations(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Frame (B,) of each observed body, and person (B,), numbered by appearance."""
    frame = np.repeat(np.arange(len(skeleton.bodies)), skeleton.bodies)
    _, first, person = np.unique(skeleton.id, return_index=True, return_inverse=True)
    person = np.argsort(np.argsort(first))[person]
    order = np.lexsort((person, frame))
    twice = (np.diff(frame[order]) == 0) & (np.diff(person[order]) == 0)
    for i in order[1:][twice][:1]:
        raise ValueError(
            f"expected each body once in a frame, got id {skeleton.id[i]} twice in frame {frame[i]}"
        )
    return frame, person


# The data set


class NTUSkeletons:
    """The clips of NTU RGB+D 60 or 120 in a directory of raw ``.skeleton`` files.

    Clips are (T, 2, 25, 3) float32, metres, in the order of their names. ``subject`` is the
    performer, ``view`` the camera, ``extra`` holds ``setup`` and ``replication``. Files without a
    body in any frame, or of which the rules leave nothing, are left out.

    Args:
        path: directory, searched with all below it, or one file. Names are
            ``SsssCcccPpppRrrrAaaa.skeleton``: setup, camera, performer, replication, action.
        classes: 60 keeps setups 1 to 17 and actions 1 to 60, 120 keeps all. Default: all, with
            the 60 classes if they suffice.
        missing: text file whose names are left out: the published list of samples with missing or
            incomplete skeletons (302 of NTU RGB+D, 535 of NTU RGB+D 120).
        bodies: "denoised", see :func:`denoise`, or "raw", see :func:`first_two`.
        normalise: subtract the origin of :func:`centre`; else camera coordinates.
        repeat_single: put an actor who is alone into both places, as CTR-GCN's preparation of
            NTU RGB+D 120 does; else, as for NTU RGB+D 60, the second place stays zero.

    Raises:
        FileNotFoundError: nothing is there, or no file that ends in ``.skeleton``.
        ValueError: a name is not of the pattern or occurs twice, or an option is unknown.

    Source: Shahroudy, Liu, Ng, Wang, *NTU RGB+D: A Large Scale Dataset for 3D Human Activity
    Analysis*, CVPR 2016; Liu, Shahroudy, Perez, Wang, Duan, Kot, *NTU RGB+D 120*, TPAMI 2020. The
    rules are those of Zhang et al., *Semantics-Guided Neural Networks*, CVPR 2020, as Chen et al.,
    *CTR-GCN*, ICCV 2021, and its successors use them.
    """

    layout = "ntu25"
    num_persons = 2
    channels = 3
    confidence = False
    fps = 30.0

    def __init__(
        self,
        path: str | Path,
        classes: int | None = None,
        missing: str | Path | None = None,
        bodies: str = "denoised",
        normalise: bool = True,
        repeat_single: bool = False,
    ) -> None:
        if classes not in (None, 60, 120):
            raise ValueError(f"NTUSkeletons: expected classes 60, 120 or None, got {classes!r}")
        if bodies not in ("denoised", "raw"):
            raise ValueError(f"NTUSkeletons: expected bodies 'denoised' or 'raw', got {bodies!r}")
        self.bodies, self.normalise, self.repeat_single = bodies, normalise, repeat_single
        root = Path(path)
        files = [root] if root.is_file() else root.rglob("*.skeleton")
        found = sorted((parse_name(file), str(file)) for file in files)
        if not found:
            raise FileNotFoundError(f"{path}: expected .skeleton files, got none")
        for (name, file), (other, again) in pairwise(found):
            if name == other:
                raise ValueError(f"{again}: expected each name once, got it in {file} too")
        omitted = set() if missing is None else _listed(missing)
        self.files = [
            (name, file)
            for name, file in found
            if name not in omitted and (classes != 60 or _in_ntu60(name))
        ]
        small = classes == 60 or (classes is None and all(_in_ntu60(n) for n, _ in self.files))
        self.classes = NTU60_CLASSES if small else NTU120_CLASSES

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Clip | None:
        """One clip, or None if the file has no body in any frame or the rules leave nothing.

        Raises:
            ValueError: damaged content; the message names file and line or frame.
        """
        name, file = self.files[index]
        skeleton = read_skeleton(file)
        if not skeleton.bodies.any():
            return None
        xyz = named(file, first_two if self.bodies == "raw" else denoise, skeleton)
        if not len(xyz):
            return None
        if self.normalise:
            xyz = centre(xyz)
        if xyz.shape[1] == 1:
            xyz = np.concatenate([xyz, xyz if self.repeat_single else np.zeros_like(xyz)], axis=1)
        return Clip(
            xyz,
            name.action - 1,
            str(name),
            subject=name.performer,
            view=name.camera,
            extra={"setup": name.setup, "replication": name.replication},
        )


class Name(NamedTuple):
    """The numbers in the name of a sample."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    def __str__(self) -> str:
        return "S{:03}C{:03}P{:03}R{:03}A{:03}".format(*self)


def parse_name(file: Path) -> Name:
    """The numbers in the name of a file.

    Raises:
        ValueError: the name is not of the pattern, or the action is not in 1..120.
    """
    match = _NAME.fullmatch(file.stem)
    if match is None or file.suffix != ".skeleton":
        raise ValueError(
            f"{file}: expected a name like S001C001P001R001A001.skeleton, got {file.name}"
        )
    name = Name(*map(int, match.groups()))
    if not 1 <= name.action <= len(NTU120_CLASSES):
        raise ValueError(f"{file}: expected an action in 1..120, got {name.action}")
    return name


def _in_ntu60(name: Name) -> bool:
    return name.setup <= _NTU60_SETUPS and name.action <= len(NTU60_CLASSES)


def _listed(path: str | Path) -> set[Name]:
    """The names in the published lists, whose first lines are prose."""
    names = {Name(*map(int, match)) for match in _NAME.findall(read_text(path))}
    if not names:
        raise ValueError(f"{path}: expected names like S001C001P001R001A001, got none")
    return names


def _recognises(path: Path) -> bool:
    file = next(path.rglob("*.skeleton"), path) if path.is_dir() else path
    return file.suffix == ".skeleton"


register_format(
    Format(
        "ntu_skeleton",
        "NTU RGB+D 60 and 120: raw .skeleton files, denoised as published",
        _recognises,
        NTUSkeletons,
    )
)
