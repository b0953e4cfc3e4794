"""The moving image is brought into the fixed image's direction as the headers tell it."""

from __future__ import annotations

import dataclasses
import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tfmetareg.imaging.image_files import grids, texture, turned
from tfmetareg.errors import UserError
from tfmetareg.geometry.affine import points_to_moving
from tfmetareg.imaging.direction import Turn, pair_notes, turn_to_fixed
from tfmetareg.imaging.grid import Grid, affine_grid
from tfmetareg.imaging.image import Image
from tfmetareg.types import ImagePair

SHAPE = (20, 30)
TURNS = [
    Turn(transposed, way)
    for transposed in (False, True)
    for way in itertools.product((False, True), repeat=2)
]
few = settings(max_examples=25, deadline=None)


def on(grid: Grid, name: str = "image") -> Image:
    return Image(texture(grid.shape), grid, name, grid.pixel_size)


def turned_grid(grid: Grid, turn: Turn) -> Grid:
    """The grid of the turned image, whose pixels lie where they lay before."""
    image = turn.image(np.moveaxis(grid.places(np.stack(np.indices(grid.shape), -1)), -1, 2))
    axes = np.reshape(grid.direction, (grid.dimension, -1)).copy()
    steps = [image[0, 1] - image[0, 0], image[1, 0] - image[0, 0]]
    axes[:, :2] = np.column_stack([step / np.linalg.norm(step) for step in steps])
    sizes = turn.size(grid.pixel_size)[::-1]
    return Grid(
        turn.size(grid.shape),
        (*sizes, *grid.spacing[2:]),
        tuple(image[0, 0]),
        tuple(axes.ravel()),
        is_known=True,
    )


@few
@given(st.sampled_from([2, 3]).flatmap(grids), st.sampled_from(TURNS))
def test_the_turned_moving_image_has_the_fixed_images_direction(fixed, turn):
    moving = turned_grid(fixed, turn)
    back = turn_to_fixed(on(moving), on(fixed))
    image = texture(fixed.shape)
    np.testing.assert_array_equal(back.image(turn.image(image)), image)
    # Points lie where they lay before, and in the same place in space.
    points = np.random.default_rng(0).uniform(0, 20, (5, 2))
    there = turn.points(points, fixed.shape)
    np.testing.assert_allclose(moving.places(there), fixed.places(points), atol=1e-3)
    np.testing.assert_allclose(back.points(there, moving.shape), points, atol=1e-4)


@pytest.mark.parametrize("turn", TURNS)
def test_points_follow_the_pixels(turn):
    image = np.arange(600).reshape(SHAPE)
    points = np.array([[0, 0], [3, 25], [19, 7]])
    rows, columns = turn.points(points, SHAPE).astype(int).T
    np.testing.assert_array_equal(turn.image(image)[rows, columns], image[tuple(points.T)])
    np.testing.assert_array_equal(turn.points(points, SHAPE), points_to_moving(points, turn.matrix(SHAPE)))
    assert turn.image(np.zeros((*SHAPE, 3))).shape == (*turn.size(SHAPE), 3)
    assert bool(turn) == (turn != TURNS[0])


@few
@given(grids(3), st.floats(-40, 40))
def test_what_is_turned_by_less_than_an_eighth_stays(fixed, degrees):
    axes = np.reshape(fixed.direction, (3, 3)).copy()
    axes[:, :2] = axes[:, :2] @ np.reshape(turned(degrees), (2, 2))
    moving = Grid(fixed.shape, fixed.spacing, (0.0, 0.0, 9.0), tuple(axes.ravel()), is_known=True)
    assert turn_to_fixed(on(moving), on(fixed)) == Turn()
    assert pair_notes(on(moving), on(fixed)) == ()


def ras(codes: str) -> Image:
    """A one-slice volume whose axes lead as the codes say."""
    volume = nibabel.Nifti1Image(np.zeros((30, 20, 1)), np.diag([1.0, 2.0, 3.0, 1.0]))
    to = nibabel.orientations.axcodes2ornt(codes)
    affine = nibabel.orientations.inv_ornt_aff(to, (30, 20, 9))
    return on(affine_grid(volume.affine @ affine, SHAPE), codes)


@pytest.mark.parametrize(
    ("moving", "fixed", "expected"),
    [
        ("RAS", "RAS", Turn()),
        ("LAS", "RAS", Turn(False, (False, True))),
        ("RAS", "LPS", Turn(False, (True, True))),
        ("ARS", "RAS", Turn(True)),
        ("PLS", "RAS", Turn(True, (True, True))),
        ("RAI", "RAS", Turn()),
    ],
)
def test_directions_by_hand(moving, fixed, expected):
    assert turn_to_fixed(ras(moving), ras(fixed)) == expected
    notes = pair_notes(ras(moving), ras(fixed))
    assert [note.image for note in notes] == ([moving] if expected else [])
    assert all("turned or mirrored" in note.text for note in notes)


def test_a_2d_image_is_an_axial_one():
    flat = Grid(SHAPE, (2.0, 1.0), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0), is_known=True)
    assert turn_to_fixed(on(flat), ras("RAS")) == Turn()
    assert turn_to_fixed(on(flat), ras("LPS")) == Turn(False, (True, True))
    with pytest.raises(UserError, match="90 degrees apart"):
        turn_to_fixed(on(flat), ras("RSA"))


def test_planes_that_cross_are_refused():
    with pytest.raises(UserError, match=r"^RAS and ASR: .* planes 90 degrees apart; pair images of one"):
        turn_to_fixed(ras("RAS"), ras("ASR"))


@pytest.mark.parametrize("unknown", ["moving", "fixed", "both"])
def test_an_image_of_no_direction_is_taken_as_the_other(unknown):
    images = {
        name: on(Grid(SHAPE), name) if unknown in (name, "both") else ras("LPS")
        for name in ("moving", "fixed")
    }
    assert turn_to_fixed(**images) == Turn()
    notes = pair_notes(**images)
    assert [note.image for note in notes] == ([] if unknown == "both" else [unknown])
    assert all("tells no direction" in note.text for note in notes)


def test_a_moving_image_is_turned_with_all_that_belongs_to_it():
    pixels = np.arange(600.0).reshape(SHAPE)
    own = {"landmarks": np.float32([[3, 25]]), "spacing": (0.5, 2.0), "labels": pixels > 3}
    pair = ImagePair("a:b", "a", pixels, pixels, **{f"moving_{name}": value for name, value in own.items()})
    pair = dataclasses.replace(pair, fixed_spacing=(0.5, 2.0))
    found = Turn(True, (False, True)).moving(pair)
    assert found.moving.shape == found.moving_labels.shape == (30, 20)
    ((row, column),) = found.moving_landmarks
    assert found.moving[int(row), int(column)] == pixels[3, 25]
    np.testing.assert_array_equal(found.moving_labels, found.moving > 3)
    assert (found.moving_spacing, found.fixed_spacing) == ((2.0, 0.5), (0.5, 2.0))
    assert found.fixed is pixels and Turn().moving(pair) is pair
