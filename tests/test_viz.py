import re

import numpy as np
import pytest

from skelops import viz
from skelops.data import synthetic
from skelops.graph import Layout, get_layout, list_layouts

image = pytest.importorskip("matplotlib.image")
to_rgb = pytest.importorskip("matplotlib.colors").to_rgb
Image = pytest.importorskip("PIL.Image")


pytestmark = pytest.mark.filterwarnings("ignore:Animation was deleted")


@pytest.fixture(scope="module")
def pair():
    """Coordinates (T, 2, 25, 3) of two persons who shake hands."""
    return synthetic.generate(16, sensor=False)[14]


def ink(path):
    """Share of the picture that is not background."""
    picture = image.imread(path)[..., :3]
    return float((np.abs(picture - 1).max(-1) > 0.1).mean())


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def like(picture, colour):
    """(K, 2) column and row, from below, of the pixels of a colour."""
    rows, columns = np.nonzero(np.abs(picture - colour).max(-1) < 0.02)
    return np.column_stack([columns, len(picture) - rows])


def stand(layout, dims=3):
    """A pose (V, dims): root at the origin, each joint beyond its parent; left limbs at x < 0."""
    rng = np.random.default_rng(0)
    pose = np.zeros((layout.num_joints, dims), np.float32)
    step = rng.normal(size=pose.shape)
    for pair in layout.left_right:
        step[list(pair), 0] = -1, 1
    for _ in range(layout.num_joints):  # as often as the deepest tree needs
        for joint, parent in layout.bones:
            pose[joint] = pose[parent] + step[joint]
    return pose


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_layouts())
def test_every_layout_is_drawn_where_its_joints_project(name, dims):
    layout = get_layout(name)
    pose = stand(layout, dims)
    look = viz.Look(up="-y")
    figure = viz.strip(pose[None, None], layout, frames=1, look=look)
    picture, axes = pixels(figure), figure.axes[0]
    expected = pose[:, :2] * (1, -1)  # images: x to the right, y down
    expected[:, 0] += np.mean(axes.get_xlim()) - (expected.max(0) + expected.min(0))[0] / 2
    columns, rows = np.floor(axes.transData.transform(expected)).astype(int).T
    assert (picture[len(picture) - 1 - rows, columns] < 0.9).any(-1).all()
    for joint, parent in layout.bones:
        middle = axes.transData.transform((expected[joint] + expected[parent]) / 2)
        column, row = np.floor(middle).astype(int)
        assert (picture[len(picture) - 1 - row, column] < 0.9).any()


def test_sides_differ_in_lightness_and_lie_as_the_camera_sees_them():
    layout = get_layout("ntu25")
    pose = stand(layout)
    pose[:, 1] = np.linspace(0, 3, 25)
    picture = pixels(viz.strip(pose[None, None], layout, frames=1, look=viz.Look(up="y")))
    _, left, right = viz._tones(0)
    half = len(picture) / 2  # below is the legend
    seen_left, seen_right = (like(picture, c) for c in (left, right))
    seen_left, seen_right = (s[s[:, 1] > half] for s in (seen_left, seen_right))
    assert len(seen_left) > 20 and len(seen_right) > 20
    assert seen_left[:, 0].mean() > seen_right[:, 0].mean()  # depth cameras: +x is on their left


def test_colours_are_told_apart_without_hue():
    def lightness(colour):
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    for person in range(len(viz.PERSONS)):
        _, left, right = map(lightness, viz._tones(person))
        assert (right + 0.05) / (left + 0.05) > 3 and 1.05 / (right + 0.05) > 1.4


def test_missing_person_is_not_drawn(pair):
    def share(clip):
        picture = pixels(viz.animate(clip, "ntu25")._fig)
        return [len(like(picture, viz._tones(person)[0])) for person in range(2)]

    alone = pair.copy()
    alone[:, 1] = 0
    both, one = share(pair), share(alone)
    assert min(both) > 50 and one[0] > 50 and one[1] == 0
    late = pair.copy()
    late[0, 1] = 0
    assert share(late)[1] < both[1] / 2  # frame 0, only the legend is left


def test_persons_are_chosen(pair):
    picture = pixels(viz.strip(pair, "ntu25", look=viz.Look(persons=(1,))))
    assert len(like(picture, viz._tones(1)[0])) > 50
    assert len(like(picture, viz._tones(0)[0])) == 0


def test_confidence_is_opacity():
    layout = get_layout("coco17")
    pose = np.concatenate([stand(layout, 2), np.ones((17, 1), np.float32)], 1)
    look = viz.Look(confidence=True)

    def darkness(score):
        clip = pose.copy()[None, None]
        clip[..., 2] = score
        return (1 - pixels(viz.strip(clip, layout, frames=1, look=look))).sum()

    assert darkness(1.0) > 1.3 * darkness(0.3)
    hidden = pose.copy()
    hidden[9:, :2] = 1e3  # a joint of score 0 may lie anywhere
    hidden[9:, 2] = 0
    seen = viz.strip(hidden[None, None], layout, frames=1, look=look).axes[0]
    assert np.ptp(seen.get_ylim()) < 100 and len(seen.collections[1].get_offsets()) == 9


@pytest.mark.parametrize("axis", ["y", "-y", "z"])
def test_up_is_found(pair, axis):
    x, y, z = np.moveaxis(pair, -1, 0)
    turned = {"y": (x, y, z), "-y": (-x, -y, z), "z": (-x, z, y)}[axis]
    turned = np.stack(turned, -1) * pair.any((2, 3), keepdims=True)
    expected = viz._Motion(pair, "ntu25", viz.Look(up="y"))
    for up in ("auto", axis):
        motion = viz._Motion(turned, "ntu25", viz.Look(up=up))
        np.testing.assert_allclose(motion.flat, expected.flat, atol=1e-6)
        np.testing.assert_allclose(motion.depth, expected.depth, atol=1e-6)


def test_viewpoint():
    points = np.zeros((1, 1, 25, 3), np.float32)
    points[0, 0, :3] = (-1, 0, 0), (0, 1, 0), (0, 0, -1)  # to the right, up, towards the viewer

    def seen(**angles):
        motion = viz._Motion(points, "ntu25", viz.Look(up="y", **angles))
        return np.round(motion.flat[0, 0, :3], 6).tolist(), motion.depth[0, 0, :3].round(6).tolist()

    assert seen() == ([[1, 0], [0, 1], [0, 0]], [0, 0, 1])
    assert seen(azim=90) == ([[0, 0], [0, 1], [-1, 0]], [1, 0, 0])  # from the right
    assert seen(elev=90) == ([[1, 0], [0, 0], [0, -1]], [0, 1, 0])  # from above


def test_strip_spreads_its_frames(pair):
    padded = np.concatenate([pair, np.zeros_like(pair)])
    figure = viz.strip([pair, padded], "ntu25", frames=5, titles=["a", "b"], heading="one two")
    first, second = figure.axes
    last = len(pair) - 1
    expected = np.linspace(0, last, 5).round().astype(int).astype(str).tolist()
    assert [t.get_text() for t in first.texts] == [t.get_text() for t in second.texts] == expected
    assert first.get_title(loc="left") == "a" and figure.get_suptitle() == "one two"
    assert first.get_aspect() == 1
    assert len(viz.strip(pair[:2], "ntu25", frames=5).axes[0].texts) == 2


def test_animation_keeps_its_scale(pair):
    animation = viz.animate(pair, "ntu25", fps=20)
    axes = animation._fig.axes[0]
    limits = axes.get_xlim(), axes.get_ylim()
    flat = viz._Motion(pair, "ntu25", viz.Look()).flat
    low, high = np.transpose(limits)
    assert (flat > low).all() and (flat < high).all() and axes.get_aspect() == 1
    animation._func(len(pair) - 1)
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    assert axes.texts[0].get_text() == f"frame {len(pair) - 1} of {len(pair)}"
    joints = axes.collections[1].get_offsets()
    np.testing.assert_allclose(np.sort(joints[:, 0]), np.sort(flat[-1, ..., 0].ravel()), rtol=1e-5)


def test_gif(pair, tmp_path):
    path = viz.save(viz.animate([pair[:7], pair[:3]], "ntu25", fps=10), tmp_path / "new" / "a.gif")
    with Image.open(path) as film:
        assert film.n_frames == 7 and film.info["duration"] == 100 and film.info["loop"] == 0
        first = np.asarray(film.convert("RGB"))
        film.seek(6)
        last = np.asarray(film.convert("RGB"))
    assert (first != 255).any(-1).mean() > 0.01 and (first != last).any()


def test_web_page_needs_no_network(pair, tmp_path):
    path = viz.save(viz.animate(pair[:5], "ntu25"), tmp_path / "a & b.html")
    page = path.read_text(encoding="utf-8")
    assert "new Array(5)" in page and page.count("data:image/png;base64") == 5
    assert "http" not in page and "<link" not in page
    assert "<title>a &amp; b</title>" in page
    for icon in re.findall(r'<i class="fa (.*?)"', page):
        assert f".{icon.replace(' ', '.')}::before" in page


def test_scores(pair):
    predicted = {"wave": 0.7, "clap": 0.15, "walk": 0.1, "sit": 0.03, "fall": 0.015, "run": 0.005}
    figure = viz.strip(pair, "ntu25", predicted=predicted, truth="clap")
    bars = figure.axes[-1]
    texts = [text.get_text() for text in bars.texts]
    assert texts[0] == "wave  70.0 %" and len(texts) == 5 and "run" not in " ".join(texts)
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [70, 15, 10, 3, 1.5])
    assert [text.get_weight() for text in bars.texts].index("bold") == 1


def test_wrong_arguments(pair, tmp_path):
    for clip, layout, look, message in (
        (pair, "coco17", viz.Look(), "expected the 17 joints of layout coco17, got 25"),
        (pair[0], "ntu25", viz.Look(), "expected a clip of shape"),
        (0 * pair, "ntu25", viz.Look(), "expected a clip with a person to draw"),
        (pair, "ntu25", viz.Look(persons=(2,)), r"expected persons in 0..1, got \[2\]"),
        (pair, "ntu25", viz.Look(up="x"), "expected up one of"),
        (pair[..., :2], "ntu25", viz.Look(elev=1), "expected elev and azim of 3-D clips only"),
        (pair[..., :2], "ntu25", viz.Look(up="z"), "expected up one of"),
    ):
        with pytest.raises(ValueError, match=message):
            viz.strip(clip, layout, look=look)
    with pytest.raises(ValueError, match="expected frames >= 1, got 0"):
        viz.strip(pair, "ntu25", frames=0)
    with pytest.raises(ValueError, match="expected fps > 0, got 0"):
        viz.animate(pair, "ntu25", fps=0)
    with pytest.raises(ValueError, match=r"expected a file name ending in \.png or .*'a\.gif'"):
        viz.save(viz.strip(pair, "ntu25"), tmp_path / "a.gif")


def test_lone_joint_is_drawn():
    figure = viz.strip(np.ones((1, 1, 1, 3)), Layout("dot", (0,)), frames=1)
    assert (pixels(figure) < 0.9).any()


def test_confusion_matrix(tmp_path):
    perfect = viz.confusion_matrix(np.eye(5, dtype=int) * 9, list("abcde"), tmp_path / "a.png")
    spread = viz.confusion_matrix(np.ones((5, 5), int), list("abcde"), tmp_path / "b.png")
    assert 0.02 < ink(perfect) < ink(spread)
    with pytest.raises(ValueError, match=r"expected matrix of shape \(3, 3\), got \(2, 2\)"):
        viz.confusion_matrix(np.eye(2), list("abc"), tmp_path / "c.png")


def test_training_curve(tmp_path):
    history = {
        "train_loss": [(1, 2.0), (2, 1.0)],
        "train_top1": [(1, 0.2), (2, 0.8)],
        "val_top1": [],
    }
    path = viz.training_curve(history, tmp_path / "a.png")
    assert ink(path) > 0.01


def coordinates(layout="ntu25"):
    dynamics = pytest.importorskip("skelops.dynamics")
    return dynamics.body_model(layout).names


def test_torques_are_drawn_over_time_in_the_panel_of_their_joint():
    names = coordinates()
    tau = np.arange(5.0)[:, None] + 10 * np.arange(len(names))
    figure = viz.torques(tau, names, 50, heading="a clip")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    joints = ["waist", "neck", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    assert list(panels) == joints and figure.get_suptitle() == "a clip"
    drawn = {axis: line for axis, line in zip("xyz", panels["waist"].lines, strict=True)}
    for axis, style in (("x", "-"), ("y", "--"), ("z", ":")):
        line = drawn[axis]
        np.testing.assert_allclose(line.get_xdata(), np.arange(5) / 50)
        np.testing.assert_allclose(line.get_ydata(), tau[:, names.index(f"chest_about_{axis}")])
        assert (line.get_linestyle(), line.get_color()) == (style, viz.TRUNK)
    knee = [(line.get_color(), line.get_ydata()[0] / 10) for line in panels["knee"].lines]
    sides = {"left": viz.LEFT, "right": viz.RIGHT}
    assert knee == [(sides[s], names.index(f"{s}_shank_about_{a}")) for s in sides for a in "xy"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["middle", "left", "right", "about x", "about y", "about z"]
    picture = pixels(figure)
    assert all(len(like(picture, to_rgb(c))) > 20 for c in (viz.LEFT, viz.RIGHT, viz.TRUNK))


@pytest.mark.parametrize("change, message", [
    (dict(tau=np.zeros((5, 3))), r"torques: expected tau of shape \(T, 35\), got \(5, 3\)"),
    (dict(fps=0), "torques: expected fps above zero, got 0"),
    (dict(names=["knee"] * 35), "torques: expected names like left_shank_about_x, got 'knee'"),
])  # fmt: skip
def test_torques_refuse(change, message):
    arguments = dict(tau=np.zeros((5, 35)), names=coordinates(), fps=30) | change
    with pytest.raises(ValueError, match=message):
        viz.torques(**arguments)


@pytest.mark.parametrize("up, turn", [("y", (0, 1, 2)), ("z", (0, 2, 1))])
def test_upward(up, turn):
    pose = synthetic.generate(1, sensor=False)[0][:, :1][..., turn]
    assert viz.upward(pose, "ntu25") == up
    assert viz.upward(pose, "ntu25", viz.Look(up="-y")) == "-y"
