"""A synthetic action data set: an articulated body moved by joint-angle trajectories.

Sixteen actions, two of them between two persons, are written as sequences of key poses (periodic
parts repeat poses) joined by minimum-jerk transitions, performed by 24 subjects of different build,
tempo, amplitude, handedness and posture, and recorded by three noisy depth cameras. Classes share
their poses and differ in their motion, so the mean pose does not tell them apart.

Sources: segment lengths as fractions of body height, Drillis and Contini (1966), in Winter,
*Biomechanics and Motor Control of Human Movement*, figure 4.1; minimum-jerk profile, Flash and
Hogan (1985); shoulder as plane of elevation, elevation and axial rotation, Wu et al., J. Biomech.
38 (2005); depth noise that grows with distance, Khoshelham and Elberink, Sensors 12 (2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from skelops.data.clips import Clips

FPS = 30.0
NUM_SUBJECTS = 24
TRAIN_SUBJECTS = tuple(range(1, 17))
TEST_SUBJECTS = tuple(range(17, 25))
VIEW_YAW = (-45.0, 0.0, 45.0)
MIN_FRAMES, MAX_FRAMES = 40, 120

# Degrees of freedom of a body, degrees; lift (feet above the floor) in metres. Trunk: lean over the
# hips, flex of the spine, side bend and twist; head: nod, turn. Arm: plane of elevation az (0
# forward, 90 sideways), elevation el, axial rotation rot (inwards), elbow, wrist. Leg: hip flexion,
# abduction abd, knee, ankle. All but side, twist, turn and yaw are positive in flexion.
TRUNK = ("yaw", "side", "twist", "turn", "lean", "flex", "nod", "lift")
LIMB = ("az", "el", "rot", "elbow", "wrist", "hip", "abd", "knee", "ankle")
DOF = (*TRUNK, *(f"a_{d}" for d in LIMB), *(f"o_{d}" for d in LIMB))  # active side, other side
_COLUMN = {name: i for i, name in enumerate(DOF)}
_SIGNED = [_COLUMN[d] for d in ("yaw", "side", "twist", "turn")]
_ACTIVE = slice(len(TRUNK), len(TRUNK) + len(LIMB))
_OTHER = slice(len(TRUNK) + len(LIMB), len(DOF))

# How far a limb that an action leaves idle may be carried away from rest, degrees.
_CARRIAGE = np.zeros(len(DOF))
_CARRIAGE[[_COLUMN[f"{side}_{d}"] for d in ("az", "el", "rot", "elbow") for side in "ao"]] = (
    *(25, 25, 10, 10, 20, 20, 40, 40),
)

# Share of posture, jitter and sway: legs that bear weight are steadier, lift is not an angle.
_LOOSE = np.array([0.4 if d[2:] in ("hip", "abd", "knee", "ankle") else d != "lift" for d in DOF])

Pose = dict[str, float]
Keys = list[tuple[float, Pose, Pose]]  # seconds to reach the poses of person 1 and of person 2


def _both(**limb: float) -> Pose:
    return {f"{side}_{dof}": value for dof, value in limb.items() for side in "ao"}


REST: Pose = {"lean": 2, "flex": 3, **_both(az=60, el=9, rot=60, elbow=14, wrist=8, abd=4, knee=4)}
SEATED = REST | {"lean": 4, **_both(az=15, el=32, rot=25, elbow=52, hip=88, knee=88, abd=8)}
RISING = REST | {"lean": 42, "flex": 12, **_both(az=20, el=38, rot=25, elbow=35, hip=58, knee=72)}
MOUTH = REST | {"a_az": 30, "a_el": 54, "a_rot": 61, "a_elbow": 142, "nod": -6}
SIP = MOUTH | {"a_el": 66, "nod": -22, "flex": -2}
BRUSH_IN = MOUTH | {"a_az": 14, "a_el": 64, "a_rot": 82}
BRUSH_OUT = MOUTH | {"a_az": 52, "a_el": 58, "a_rot": 42, "a_elbow": 134}
RAISED = REST | {"a_az": 80, "a_el": 88, "a_rot": 8, "a_elbow": 80}
WAVE_OUT = RAISED | {"a_elbow": 38}
WAVE_IN = RAISED | {"a_elbow": 122}
PALMS = REST | _both(az=22, el=45, rot=50, elbow=83)
PALMS_OPEN = PALMS | _both(az=36, rot=30)
PALMS_SHUT = PALMS | _both(az=8, rot=70)
RUB = PALMS | {"a_el": 60, "a_elbow": 64, "o_el": 30, "o_elbow": 102}
WIND_UP = REST | {"a_az": 100, "a_el": 92, "a_rot": -25, "a_elbow": 105, "twist": -38, "turn": 25}
WIND_UP |= {"o_el": 45, "o_az": 20, "o_hip": 14, "o_knee": 12, "a_hip": -10, "a_knee": 10}
RELEASE = REST | {"a_az": 5, "a_el": 108, "a_rot": 20, "a_elbow": 26, "twist": 30, "lean": 16}
RELEASE |= {"o_hip": 26, "o_knee": 24, "a_hip": -16, "a_knee": 14, "a_ankle": -20}
FOLLOW = RELEASE | {"a_az": -15, "a_el": 46, "a_elbow": 26, "twist": 40, "lean": 26}
STOOP = REST | {"lean": 66, "flex": 34, "nod": -8, "twist": 14, "a_az": 10, "a_el": 84, "a_rot": 20}
STOOP |= {"a_elbow": 6, "o_az": 20, "o_el": 48, "o_elbow": 40, **_both(hip=44, knee=66)}
HOLDING = REST | {"a_az": 30, "a_el": 16, "a_rot": 42, "a_elbow": 92}
STRIDE = REST | {"a_hip": 28, "a_knee": 8, "o_hip": -20, "o_knee": 16, "o_ankle": -22, "twist": -7}
STRIDE |= {"a_el": -20, "a_az": 10, "o_az": 10, "o_el": 28, "o_elbow": 28}
SWING = REST | {"o_hip": 14, "o_knee": 56, "lean": 4}
CLASP = REST | {"a_az": 2, "a_el": 44, "a_rot": 28, "a_elbow": 50, "a_wrist": 0, "lean": 6}
SHAKE_DOWN = CLASP | {"a_el": 32, "a_elbow": 36}
SHAKE_UP = CLASP | {"a_el": 56, "a_elbow": 68}


def _alone(*keys: tuple[float, Pose]) -> Keys:
    return [(seconds, pose, REST) for seconds, pose in keys]


def _swap(pose: Pose) -> Pose:
    """The pose with the other side active."""
    other = {"a": "o", "o": "a"}
    swapped = {other[d[0]] + d[1:] if d[1] == "_" else d: v for d, v in pose.items()}
    return swapped | {d: -pose[d] for d in ("yaw", "side", "twist", "turn") if d in pose}


def _walk(n: int) -> Keys:
    steps = [(0.34, STRIDE), (0.22, SWING), (0.34, _swap(STRIDE)), (0.22, _swap(SWING))]
    return _alone((0.1, REST), (0.3, SWING), *(steps * n)[: 2 * n + 3], (0.4, REST))


def _reverse(keys: Keys) -> Keys:
    seconds = [keys[0][0], *(k[0] for k in keys[:0:-1])]
    return [(s, *k[1:]) for s, k in zip(seconds, reversed(keys), strict=True)]


def _there_and_back(pose: Pose, *cycle: tuple[float, Pose], seconds: float = 0.6) -> Keys:
    """Rest, the pose, a cycle that returns to it, rest."""
    return _alone((0.1, REST), (seconds, pose), *cycle, (seconds, REST))


# Each action: n (1 to 3, how long its periodic part or its pause lasts) -> key poses.
ACTIONS: dict[str, Callable[[int], Keys]] = {
    "drink": lambda n: _there_and_back(MOUTH, (0.4, SIP), (0.5 * n, SIP), (0.4, MOUTH)),
    "brush teeth": lambda n: _there_and_back(
        MOUTH, *[(0.22, BRUSH_IN), (0.22, BRUSH_OUT)] * (n + 2), (0.15, MOUTH)
    ),
    "wave": lambda n: _there_and_back(RAISED, *[(0.25, WAVE_OUT), (0.25, WAVE_IN)] * (n + 1)),
    "raise hand": lambda n: _there_and_back(RAISED, (0.5 * n + 0.5, RAISED)),
    "clap": lambda n: _there_and_back(
        PALMS, *[(0.2, PALMS_SHUT), (0.22, PALMS_OPEN)] * (n + 2), (0.12, PALMS)
    ),
    "rub hands": lambda n: _there_and_back(
        PALMS, *[(0.3, RUB), (0.3, _swap(RUB))] * (n + 1), (0.15, PALMS)
    ),
    "throw": lambda n: _alone(
        *((0.1, REST), (0.6, WIND_UP), (0.22, RELEASE), (0.2, FOLLOW), (0.6, REST))
    ),
    "pull": lambda n: _reverse(ACTIONS["throw"](n)),
    "sit down": lambda n: _alone((0.1, REST), (0.6, RISING), (0.6, SEATED)),
    "stand up": lambda n: _reverse(ACTIONS["sit down"](n)),
    "pick up": lambda n: _alone((0.1, REST), (0.8, STOOP), (0.2, STOOP), (0.8, HOLDING)),
    "put down": lambda n: _reverse(ACTIONS["pick up"](n)),
    "walk": _walk,
    "back away": lambda n: _reverse(_walk(n)),
    "handshake": lambda n: [
        *((0.1, REST, REST), (0.6, CLASP, CLASP)),
        *[(0.22, SHAKE_DOWN, SHAKE_DOWN), (0.22, SHAKE_UP, SHAKE_UP)] * (n + 2),
        *((0.2, CLASP, CLASP), (0.6, REST, REST)),
    ],
    "hand over": lambda n: [
        *((0.1, HOLDING, REST), (0.6, CLASP, REST), (0.7, CLASP, CLASP)),
        *((0.3 * n, CLASP, CLASP), (0.5, REST, HOLDING)),
    ],
}
CLASSES = tuple(ACTIONS)
TWO_PERSON = ("handshake", "hand over")


def generate(
    num_clips: int = 1536,
    seed: int = 0,
    *,
    subjects: Iterable[int] | None = None,
    sensor: bool = True,
) -> Clips:
    """Generate clips of the sixteen actions in the NTU RGB+D joint order.

    A clip depends on ``(seed, its index)`` alone, so a longer set starts with the shorter one.
    Classes cycle fastest, then subjects: every multiple of 384 clips holds each class of each
    subject equally often. Partners in two-person clips never cross the line between
    ``TRAIN_SUBJECTS`` and ``TEST_SUBJECTS``.

    Args:
        num_clips: number of clips of the whole set, 1 or more.
        seed: seed of the set, 0 or more.
        subjects: keep the clips of these subjects (1 to 24) only. Default: all.
        sensor: False leaves out measurement noise and dropped frames.

    Returns:
        Clips in camera coordinates (metres, y up, z away from the camera, a person facing the
        camera has the left side at smaller x) with M = 2 persons, V = 25 joints, 40 to 120 frames
        at 30 Hz and views 1 to 3 (camera at -45, 0 and 45 degrees).

    Raises:
        ValueError: ``num_clips`` < 1 or no clip of the given subjects.
    """
    if num_clips < 1:
        raise ValueError(f"generate: expected num_clips >= 1, got {num_clips}")
    index = np.arange(num_clips)
    label = index % len(CLASSES)
    subject = index // len(CLASSES) % NUM_SUBJECTS + 1
    view = (index // len(CLASSES) // NUM_SUBJECTS + subject + label) % len(VIEW_YAW) + 1
    if subjects is not None:
        index = index[np.isin(subject, list(subjects))]
        if len(index) == 0:
            raise ValueError(f"generate: expected subjects with clips, got {list(subjects)}")
    people = [_Subject(seed, s) for s in range(1, NUM_SUBJECTS + 1)]
    takes = [_Take(seed, int(i), int(label[i]), int(view[i]), people, subject) for i in index]

    length = np.array([len(t.angles) for t in takes])
    clip = np.repeat(np.arange(len(takes)), length)
    angles = np.concatenate([t.angles for t in takes])
    present = np.array([[True, t.pair] for t in takes])[clip]
    bones = np.stack([t.bones for t in takes])
    place = np.stack([t.place for t in takes])
    xyz = np.zeros((len(clip), 2, 25, 3), np.float32)
    for person in range(2):
        here = present[:, person]
        at = place[clip[here], person]
        body = _body(angles[here, person], bones[clip[here], person], clip[here])
        xyz[here, person] = body @ _turn(at[:, 3]) + at[:, None, :3]
    xyz = _to_camera(xyz, np.stack([t.camera for t in takes])[clip])
    if sensor:
        noise = np.concatenate([t.noise for t in takes])
        xyz += noise * _noise_scale(xyz)[..., None]
        present &= ~np.concatenate([t.dropped for t in takes])[:, None]
    xyz[~present] = 0
    swapped = np.array([t.swapped for t in takes])[clip]
    xyz[swapped] = xyz[swapped, ::-1]
    return Clips(
        xyz,
        length,
        label[index],
        CLASSES,
        layout="ntu25",
        name=np.array([f"synthetic_{seed}_{i:06d}" for i in index]),
        subject=subject[index],
        view=view[index],
        fps=FPS,
    )


class _Subject:
    """Build, posture and manner of one performer."""

    def __init__(self, seed: int, number: int) -> None:
        rng = np.random.default_rng([seed, 1, number])
        self.height = rng.normal(1.70, 0.09)
        self.build = rng.normal(1, 0.04, 8)
        self.tempo = rng.uniform(0.8, 1.25)
        self.amplitude = rng.normal(1, 0.07)
        self.right_handed = rng.random() < 0.88
        self.posture = rng.normal(0, 4, len(DOF)) * _LOOSE

    def bones(self) -> np.ndarray:
        """(25, 3) offset of each joint from its parent in the rest pose, metres."""
        trunk, neck, clavicle, upper_arm, forearm, hip, thigh, shank = self.build
        upper = {
            1: (0, 0.144 * trunk, 0),
            20: (0, 0.144 * trunk, 0),
            2: (0, 0.040 * neck, 0),
            3: (0, 0.078 * neck, -0.008),
        }
        arm = {
            4: (0.125 * clavicle, -0.012, 0),
            5: (0, -0.186 * upper_arm, 0),
            6: (0, -0.146 * forearm, 0),
            7: (0, -0.054, 0),
            21: (0, -0.054, 0),
            22: (-0.014, -0.020, -0.030),
        }
        leg = {
            12: (0.052 * hip, -0.030, 0),
            13: (0, -0.245 * thigh, 0),
            14: (0, -0.246 * shank, 0),
            15: (0.006, -0.032, -0.085),
        }
        offset = np.zeros((25, 3))
        for joint, bone in {**upper, **arm, **leg}.items():
            offset[joint] = bone
        for left, right in zip(LEFT, RIGHT, strict=True):
            offset[right] = offset[left]
            offset[left] = offset[left] * (-1, 1, 1)
        return offset * self.height


# Forward kinematics is rooted at the base of the spine; _FRAME names the moving frame that carries
# the bone from the parent to the joint.
LEFT = (4, 5, 6, 7, 21, 22, 12, 13, 14, 15)
RIGHT = (8, 9, 10, 11, 23, 24, 16, 17, 18, 19)
_ORDER = (1, 20, 2, 3, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24, 12, 13, 14, 15, 16, 17, 18, 19)
_PARENT = {1: 0, 20: 1, 2: 20, 3: 2, 4: 20, 8: 20, 12: 0, 16: 0, 22: 7, 24: 11, 21: 7, 23: 11}
_FRAME = {1: "trunk", 20: "chest", 2: "neck", 3: "neck"} | {
    joint: f"{side}_{part}" if part not in ("chest", "root") else part
    for side, joints in (("l", LEFT), ("r", RIGHT))
    for joint, part in zip(
        joints,
        ("chest", "arm", "fore", "hand", "hand", "hand", "root", "thigh", "shank", "foot"),
        strict=True,
    )
}


class _Take:
    """All that is random in one clip, drawn from (seed, index)."""

    def __init__(self, seed, index, label, view, people, subject) -> None:
        rng = np.random.default_rng([seed, 2, index])
        number = int(subject[index])
        partner = number + 1 if number % 2 else number - 1  # 16 | 17 is never crossed
        cast = [people[number - 1], people[partner - 1]]
        lead = cast[0]
        self.pair = CLASSES[label] in TWO_PERSON
        self.swapped = self.pair and rng.random() < 0.5
        self.bones = np.stack([p.bones() for p in cast])

        keys = ACTIONS[CLASSES[label]](int(rng.integers(1, 4)))
        seconds = np.array([k[0] for k in keys]) * lead.tempo * rng.lognormal(0, 0.15, len(keys))
        seconds[0] += rng.uniform(0, 0.9)
        time = np.cumsum(seconds)
        frames = int(np.clip((time[-1] + rng.uniform(0.1, 0.9)) * FPS, MIN_FRAMES, MAX_FRAMES))
        right = lead.right_handed == (rng.random() < 0.85)
        self.angles = np.stack(
            [
                _track(rng, p, [k[1 + i] for k in keys], time, frames, right)
                for i, p in enumerate(cast)
            ],
            axis=1,
        )

        gap = rng.uniform(0.75, 0.95) if self.pair else 0.0
        heading = rng.choice([-90, 90]) if self.pair else 0.0
        heading += rng.normal(0, 18)
        ahead = np.array([-np.sin(np.radians(heading)), 0, -np.cos(np.radians(heading))])
        self.place = [
            (*(-gap / 2 * ahead), heading),
            (*(gap / 2 * ahead), heading + 180 + rng.normal(0, 6)),
        ]
        self.camera = np.array([
            VIEW_YAW[view - 1] + rng.normal(0, 8), rng.normal(-6, 3), rng.normal(0, 1.5),
            rng.normal(0, 0.25), rng.uniform(0.9, 1.5), rng.uniform(2.4, 3.8),
        ])  # fmt: skip
        white = rng.standard_normal((frames + 4, 2, 25, 3), np.float32)
        self.noise = sum(white[k : k + frames] for k in range(5)) / 5 + white[:frames] * 0.4
        self.dropped = np.zeros(frames, bool)
        if rng.random() < 0.35:
            for _ in range(rng.integers(1, 4)):
                start = rng.integers(1, frames - 5)
                self.dropped[start : start + rng.integers(1, 5)] = True


def _track(rng, subject, poses, time, frames, right) -> np.ndarray:
    """(T, DOF) degrees: minimum-jerk interpolation of jittered key poses, with postural sway."""
    values = np.array([[pose.get(dof, 0.0) for dof in DOF] for pose in poses])
    rest = np.array([REST.get(dof, 0.0) for dof in DOF])
    held = np.cumsum(np.r_[0, (np.diff(values, axis=0) != 0).any(1)])  # repeated pose, same draw
    jitter = rng.normal(0, 1, (held[-1] + 1, len(DOF)))[held] * _LOOSE
    idle = (values == rest).all(0)
    values = rest + (values - rest) * subject.amplitude * (1 + 0.07 * jitter) + 2 * jitter
    values += idle * _CARRIAGE * np.abs(rng.normal(0, 1, len(DOF)))
    if not right:
        values[:, _ACTIVE], values[:, _OTHER] = values[:, _OTHER].copy(), values[:, _ACTIVE].copy()
        values[:, _SIGNED] *= -1

    t = np.arange(frames) / FPS
    after = np.clip(np.searchsorted(time, t, side="right"), 1, len(time) - 1)
    start, stop = time[after - 1], time[after]
    s = np.clip((t - start) / (stop - start), 0, 1)[:, None]
    ease = s**3 * (10 - 15 * s + 6 * s**2)
    angles = values[after - 1] + (values[after] - values[after - 1]) * ease

    sway = rng.normal(0, 1.2, len(DOF)) * _LOOSE
    rate, phase = rng.uniform(0.15, 0.6, len(DOF)), rng.uniform(0, 2 * np.pi, len(DOF))
    return angles + subject.posture + sway * np.sin(2 * np.pi * rate * t[:, None] + phase)


def _rotation(axis: int, degrees: np.ndarray) -> np.ndarray:
    """(B, 3, 3) right-handed rotations about x (0), y (1) or z (2)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    r = np.zeros((len(c), 3, 3), np.float32)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    r[:, axis, axis] = 1
    r[:, i, i] = r[:, j, j] = c
    r[:, i, j], r[:, j, i] = -s, s
    return r


def _turn(degrees: np.ndarray) -> np.ndarray:
    """Rotations about y, to be applied to row vectors from the right."""
    return _rotation(1, -degrees)


def _frames(angles: np.ndarray) -> dict[str, np.ndarray]:
    """Orientation (B, 3, 3) of each moving frame from the angles (B, DOF).

    The body faces -z with its right at +x; signs below follow from that.
    """
    a = dict(zip(DOF, angles.T, strict=True))
    frame = {"root": _rotation(1, a["yaw"])}
    lean = frame["root"] @ _rotation(0, -a["lean"]) @ _rotation(2, a["side"])
    frame["trunk"] = lean @ _rotation(1, a["twist"] / 2)
    frame["chest"] = frame["trunk"] @ _rotation(0, -a["flex"]) @ _rotation(1, a["twist"] / 2)
    frame["neck"] = frame["chest"] @ _rotation(1, a["turn"]) @ _rotation(0, -a["nod"])
    for side, limb, sign in (("r", "a", 1), ("l", "o", -1)):
        d = {name: a[f"{limb}_{name}"] for name in LIMB}
        elbow, knee = np.maximum(d["elbow"], 0), np.maximum(d["knee"], 0)
        arm = frame["chest"] @ _rotation(1, -sign * d["az"]) @ _rotation(0, d["el"])
        frame[f"{side}_arm"] = arm @ _rotation(1, sign * d["rot"])
        frame[f"{side}_fore"] = frame[f"{side}_arm"] @ _rotation(0, elbow)
        frame[f"{side}_hand"] = frame[f"{side}_fore"] @ _rotation(0, d["wrist"])
        thigh = frame["root"] @ _rotation(0, d["hip"]) @ _rotation(2, sign * d["abd"])
        flat = np.clip(knee - d["hip"], -35, 35)  # keeps the sole level
        frame[f"{side}_thigh"] = thigh
        frame[f"{side}_shank"] = thigh @ _rotation(0, -knee)
        frame[f"{side}_foot"] = frame[f"{side}_shank"] @ _rotation(0, flat + d["ankle"])
    return frame


def _body(angles: np.ndarray, bones: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """Joints (B, 25, 3) of bodies that stand on their feet without sliding.

    Rows of one clip are consecutive frames, the clip starts above the origin.
    """
    bones = bones.astype(np.float32)
    frame = _frames(angles.astype(np.float32))
    xyz = np.zeros_like(bones)
    for joint in _ORDER:
        bone = np.einsum("bij,bj->bi", frame[_FRAME[joint]], bones[:, joint])
        xyz[:, joint] = xyz[:, _PARENT.get(joint, joint - 1)] + bone

    starts = np.diff(clip, prepend=-1) != 0
    ankle, toe = xyz[:, [14, 18]], xyz[:, [15, 19]]
    height = np.minimum(ankle[..., 1] + bones[:, [15, 19], 1], toe[..., 1])
    support = np.exp((height.min(1, keepdims=True) - height) / 0.02)[..., None]
    support /= support.sum(1, keepdims=True)
    step = np.zeros((len(xyz), 3))
    step[1:] = -(support[1:] * (ankle[1:] - ankle[:-1])).sum(1)
    step[starts] = 0
    path = np.cumsum(step, axis=0)
    path -= path[np.maximum.accumulate(np.where(starts, np.arange(len(clip)), 0))]
    path[:, 1] = angles[:, _COLUMN["lift"]] - height.min(1)
    return xyz + path[:, None].astype(np.float32)


def _to_camera(xyz: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """World (F, M, V, 3) seen by cameras (F, 6): yaw, pitch, roll, offset, height, distance."""
    yaw, pitch, roll, offset, height, distance = camera.T
    seen = xyz.reshape(len(xyz), -1, 3) @ _turn(yaw)
    seen += np.stack([offset, -height, distance], 1)[:, None].astype(np.float32)
    seen = seen @ _rotation(0, -pitch) @ _rotation(2, -roll)
    return seen.reshape(xyz.shape)


_EXTREMITY = np.full(25, 0.007, np.float32)  # standard deviation at 3 m, metres
_EXTREMITY[[5, 9, 13, 17]] = 0.010
_EXTREMITY[[6, 10, 14, 18]] = 0.014
_EXTREMITY[[7, 11, 15, 19, 21, 22, 23, 24]] = 0.018


def _noise_scale(xyz: np.ndarray) -> np.ndarray:
    """Standard deviation (F, M, V) of each joint: extremities, distance, behind the trunk."""
    trunk = xyz[:, :, [0, 1, 20]].mean(2, keepdims=True)
    depth = np.clip((xyz - trunk)[..., 2] / 0.04 - 2, -20, 20)
    beside = np.clip((np.abs((xyz - trunk)[..., 0]) - 0.16) / 0.04, -20, 20)
    occluded = 1 / (1 + np.exp(-depth)) / (1 + np.exp(beside))
    return _EXTREMITY * (1 + 2.5 * occluded) * (xyz[..., 2] / 3) ** 2
