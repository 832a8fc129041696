import numpy as np
import pytest

from skelops import viz
from skelops.data import synthetic

image = pytest.importorskip("matplotlib.image")


def ink(path):
    """Share of the picture that is not background."""
    picture = image.imread(path)[..., :3]
    return float((np.abs(picture - 1).max(-1) > 0.1).mean())


def test_film_strip(tmp_path):
    clips = synthetic.generate(16)
    path = viz.film_strip(clips, [0, 15], tmp_path / "new" / "strip.png", frames=5)
    assert path.exists() and 0.01 < ink(path) < 0.5
    clips.xyz[:, 1] = 0
    alone = viz.film_strip(clips, [0, 15], tmp_path / "alone.png", frames=5)
    assert ink(alone) < ink(path)


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
