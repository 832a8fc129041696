"""Boxes, crops, sizes and flips of key-points."""

import pytest
import torch

from skelops.data.pose import crop_pose, flip_pose, pose_box, resize_pose


def points(*xy):
    return torch.tensor(xy, dtype=torch.float32).view(1, 1, -1, 2)


def test_box_is_square_wider_and_cut_at_the_border():
    given = points((100, 200), (140, 300), (0, 0), (float("nan"), 250))
    assert pose_box(given, (400, 600)).tolist() == [57, 187, 182, 312]
    assert pose_box(given, (305, 600)).tolist() == [57, 187, 182, 305]
    assert pose_box(given, (305, 600), outside=True).tolist() == [57, 187, 182, 312]
    assert pose_box(given, (400, 600), ratio=None).tolist() == [95, 187, 145, 312]


@pytest.mark.parametrize("given", [points((0, 0)), points((50, 60), (59, 90)), points((5, 5))])
def test_small_boxes_are_the_whole_picture(given):
    assert pose_box(given, (400, 600)).tolist() == [0, 0, 600, 400]


def test_coordinates_of_zero_stay():
    given = points((100, 200), (0, 210), (0, 0), (float("nan"), 4))
    cropped = crop_pose(given, torch.tensor([90, 195, 190, 295]))
    assert cropped.view(-1, 2).tolist() == [[10, 5], [0, 15], [0, 0], [0, -191]]
    flipped = flip_pose(cropped, 100, [1, 0, 2, 3])
    assert flipped.view(-1, 2).tolist() == [[0, 15], [90, 5], [0, 0], [0, -191]]
    resized = resize_pose(cropped, (100, 50), (56, 56))
    torch.testing.assert_close(resized[0, 0, 0], torch.tensor([10 * 56 / 50, 5 * 56 / 100]))


def test_bad_input():
    with pytest.raises(ValueError, match=r"pose_box: expected keypoint of shape .* got \(2, 3\)"):
        pose_box(torch.zeros(2, 3), (4, 4))
    for function in (lambda: pose_box(points((1, 1)), (0, 5)),
                     lambda: resize_pose(points((1, 1)), (5, 0), (56, 56))):  # fmt: skip
        with pytest.raises(ValueError, match="expected a picture with pixels, got"):
            function()
