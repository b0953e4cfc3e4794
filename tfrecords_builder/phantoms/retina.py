"""OCT angiography, en face: the superficial plexus around the fovea, and the vessel bed of the choroid.

An image has two parts: large vessels, which are the same in every scan of an eye, and capillaries, whose flow
varies from scan to scan. Coordinates are (down, right) from the fovea's mean position, in frames.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfrecords_builder.deformation import smooth_noise

# In frames: step of a growing vessel, cell of `_VesselMap`, least radius of a branch.
_STEP = 0.009
_CELL = 0.01
_THINNEST = 0.0026


@dataclasses.dataclass
class Vessel:
    """A growing vessel.

    Attributes:
        points: centre line so far, (down, right), `_STEP` apart.
        heading: direction of growth, radians, from right towards down.
        radius: radius at its start, frames; it tapers to 60 %.
        goal: "arc" around the fovea, "fovea" (towards it) or "away" (from it).
        length: length at which it stops growing, frames.
        orbit: radius of an arc, frames.
        turn: +1 or -1, direction of an arc around the fovea.
        generation: 0 for vessels that enter from an edge, 1 for their branches, and so on.
    """

    points: list[tuple[float, float]]
    heading: float
    radius: float
    goal: str
    length: float
    orbit: float = 0.0
    turn: float = 1.0
    generation: int = 0


@dataclasses.dataclass(frozen=True)
class VesselTree:
    """The large vessels of one retina, in frames, (down, right).

    Attributes:
        paths: centre lines, each (n, 2).
        radii: radius at each node, each (n,).
        junctions: (k, 2), points where a vessel branches off another, the most visible first.
        faz: radius of the foveal avascular zone.
    """

    paths: list[np.ndarray]
    radii: list[np.ndarray]
    junctions: np.ndarray
    faz: float


def grow_vessels(rng: np.random.Generator, extent: tuple[float, float]) -> VesselTree:
    """Grows arterioles and venules from the edges: arcades around the fovea, with branches both ways.

    Args:
        rng: source of randomness.
        extent: half (height, width) of the area to fill, in frames.
    """
    faz = float(rng.uniform(0.05, 0.075))
    space = _VesselMap(extent)
    queue = _arcades(rng, extent) + _edge_vessels(rng, extent)
    paths: list[np.ndarray] = []
    radii, junctions = [], []
    while queue:
        vessel = queue.pop(0)
        label = len(paths) + 1
        children = _grow(vessel, label, rng, space, faz)
        path = np.array(vessel.points)
        # A stub would add a junction where no branch is visible.
        if len(path) * _STEP < 0.05:
            continue
        paths.append(path)
        radii.append(vessel.radius * np.linspace(1.0, 0.6, len(path)))
        if vessel.generation > 0:
            junctions.append((vessel.radius, *vessel.points[0]))
        queue.extend(children)
    ranked = np.array(sorted(junctions, reverse=True)).reshape(-1, 3)[:, 1:]
    # Left and right eyes: the optic disc is on either side.
    mirror = np.array([1.0, rng.choice([-1.0, 1.0])])
    return VesselTree([path * mirror for path in paths], radii, ranked * mirror, faz)


class _VesselMap:
    """The vessel in each cell of the retina; vessels of a plexus do not grow through one another."""

    def __init__(self, extent: tuple[float, float]):
        self._extent = extent
        self._columns = int(2 * extent[1] / _CELL) + 4
        self._owner = [0] * (self._columns * (int(2 * extent[0] / _CELL) + 4))

    def inside(self, down: float, right: float) -> bool:
        """Whether a point lies in the area to fill."""
        return abs(down) < self._extent[0] and abs(right) < self._extent[1]

    def _cell(self, down: float, right: float) -> int:
        row = int((down + self._extent[0]) / _CELL) + 1
        return row * self._columns + int((right + self._extent[1]) / _CELL) + 1

    def owner(self, down: float, right: float) -> int:
        """Label of the vessel there, 0 for none."""
        return self._owner[self._cell(down, right)]

    def claim(self, down: float, right: float, label: int) -> None:
        """Marks the cell and its free neighbours as the vessel's."""
        middle = self._cell(down, right)
        for row in (-self._columns, 0, self._columns):
            for cell in (middle + row - 1, middle + row, middle + row + 1):
                if self._owner[cell] == 0:
                    self._owner[cell] = label


def _arcades(rng: np.random.Generator, extent: tuple[float, float]) -> list[Vessel]:
    """An arteriole and a venule each above and below the fovea, from the optic disc's side, the left."""
    vessels = []
    for turn in (1.0, -1.0):
        inner = rng.uniform(0.21, 0.27)
        radii = rng.uniform(0.0085, 0.0125, 2)
        outer = inner + rng.uniform(0.10, 0.15)
        for orbit, radius, start in ((inner, radii[0], 0.07), (outer, radii[1], 0.22)):
            down = -turn * (start + rng.uniform(-0.03, 0.05))
            heading = -turn * rng.uniform(0.2, 0.7)
            vessels.append(Vessel([(down, -extent[1] + 0.01)], heading, radius, "arc", 2.0, orbit, turn))
    return vessels


def _edge_vessels(rng: np.random.Generator, extent: tuple[float, float]) -> list[Vessel]:
    """Smaller vessels from the other three edges towards the fovea."""
    height, width = extent
    vessels = []
    for side in (-1, 1):
        for right in rng.uniform(-0.8 * width, 0.9 * width, 4):
            start = (side * (height - 0.01), right)
            vessels.append(_towards_fovea(rng, start, rng.uniform(0.0045, 0.0075)))
    for down in rng.uniform(-0.6 * height, 0.6 * height, 3):
        vessels.append(_towards_fovea(rng, (down, width - 0.01), rng.uniform(0.0045, 0.007)))
    return vessels


def _towards_fovea(rng: np.random.Generator, start: tuple[float, float], radius: float) -> Vessel:
    heading = math.atan2(-start[0], -start[1]) + rng.normal(0, 0.3)
    return Vessel([start], heading, radius, "fovea", 0.6)


def _grow(
    vessel: Vessel, label: int, rng: np.random.Generator, space: _VesselMap, faz: float
) -> list[Vessel]:
    """Grows a vessel to its end; returns its branches."""
    children: list[Vessel] = []
    parent = space.owner(*vessel.points[0])
    stop = faz * (0.95 + 0.9 * rng.uniform() ** 2)
    until_branch, bend, side = rng.uniform(0.02, 0.06), 0.0, float(rng.choice([-1.0, 1.0]))
    for step in range(int(vessel.length / _STEP)):
        down, right = vessel.points[-1]
        bend = 0.8 * bend + 0.022 * rng.standard_normal()
        vessel.heading += bend + _steering(vessel, down, right)
        down += _STEP * math.sin(vessel.heading)
        right += _STEP * math.cos(vessel.heading)
        if not space.inside(down, right) or math.hypot(down, right) < stop:
            break
        owner = space.owner(down, right)
        if owner not in (0, label) and not (owner == parent and step < 5):
            break
        vessel.points.append((down, right))
        space.claim(down, right, label)
        until_branch -= _STEP
        if until_branch <= 0 and vessel.generation < 4:
            side = -side if rng.uniform() < 0.7 else side
            children += _branch(vessel, side, rng)
            until_branch = rng.uniform(0.035, 0.085) * (1.0 if vessel.goal == "arc" else 1.25)
    return children


def _steering(vessel: Vessel, down: float, right: float) -> float:
    """Change of heading in one step towards the vessel's goal, radians."""
    outwards = math.atan2(down, right)
    if vessel.goal == "arc":
        # Beyond the fovea an arcade straightens and continues to the temporal edge.
        drift = 4.0 * (vessel.orbit - math.hypot(down, right))
        wanted = outwards + vessel.turn * (math.pi / 2 - max(-1.0, min(1.0, drift)))
        if right > 0.1:
            wanted = vessel.turn * 0.15
    else:
        wanted = outwards + (math.pi if vessel.goal == "fovea" else 0.0)
    error = (wanted - vessel.heading + math.pi) % (2 * math.pi) - math.pi
    return 0.12 * math.sin(error) if vessel.goal == "arc" else 0.07 * math.sin(error)


def _branch(vessel: Vessel, side: float, rng: np.random.Generator) -> list[Vessel]:
    """The branch at the vessel's tip; none if it would be too thin."""
    radius = vessel.radius * rng.uniform(0.45, 0.75)
    if radius < _THINNEST:
        return []
    down, right = vessel.points[-1]
    heading = vessel.heading + side * rng.uniform(0.6, 1.25)
    inwards = -(math.sin(heading) * down + math.cos(heading) * right) > 0
    length = rng.uniform(0.12, 0.34) * (1.2 if vessel.goal == "arc" else 0.8)
    goal = "fovea" if inwards else "away"
    return [Vessel([(down, right)], heading, radius, goal, length, generation=vessel.generation + 1)]


def draw_vessels(
    tree: VesselTree, shape: tuple[int, int], frame: float, origin: tuple[float, float]
) -> np.ndarray:
    """Flow signal of the large vessels, float32 (height, width) in [0, 1].

    Args:
        tree: the vessels.
        shape: (height, width) of the canvas.
        frame: pixels in a frame.
        origin: (row, column) of the fovea on the canvas.
    """
    canvas = np.zeros(shape, np.float32)
    for path, radii in zip(tree.paths, tree.radii):
        centres, calibres = _resample(path * frame + np.asarray(origin), radii * frame)
        # Wider vessels have more flow and hence a stronger signal.
        _stamp(canvas, centres, calibres, frame, brightness=np.clip(0.5 + 55 * calibres / frame, 0, 1))
    return canvas


def _resample(path: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre line and radii at half-pixel steps, by linear interpolation."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at = np.arange(0.0, length[-1] + 0.5, 0.5)
    return np.stack([np.interp(at, length, axis) for axis in path.T], axis=-1), np.interp(at, length, radii)


def _stamp(
    canvas: np.ndarray,
    centres: np.ndarray,
    radii: np.ndarray,
    frame: float,
    *,
    brightness: np.ndarray | float,
) -> None:
    """Draws discs with a soft rim along a centre line (pixels); keeps the maximum of old and new values."""
    rim = max(0.45, 0.003 * frame)
    reach = int(np.ceil(radii.max() + rim + 0.5))
    nearest = np.rint(centres).astype(int)
    offset = np.arange(-reach, reach + 1)
    rows, columns = nearest[:, :1] + offset, nearest[:, 1:] + offset
    squared = ((rows - centres[:, :1]) ** 2)[:, :, None] + ((columns - centres[:, 1:]) ** 2)[:, None, :]
    inside = np.clip((radii[:, None, None] - np.sqrt(squared)) / (2 * rim) + 0.5, 0, 1)
    value = (np.reshape(brightness, (-1, 1, 1)) * inside).astype(np.float32)
    # Pixels outside the canvas must not wrap round: they go to pixel 0 with value 0.
    height, width = canvas.shape
    value *= ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    where = np.where(value > 0, rows[:, :, None] * width + columns[:, None, :], 0)
    np.maximum.at(canvas.reshape(-1), where.ravel(), value.ravel())


def capillaries(shape: tuple[int, int], rng: np.random.Generator, frame: float) -> np.ndarray:
    """A mesh of capillaries with varying flow, the zero lines of fine noise; float32 `shape`, in [0, 1]."""
    mesh = np.zeros(shape, np.float32)
    for _ in range(2):
        field = smooth_noise(shape, rng, smoothness_px=max(1.0, 0.0095 * frame))
        slope = np.hypot(*np.gradient(field))
        width = max(0.5, 0.0035 * frame)
        line = np.exp(-0.5 * (field / (width * np.maximum(slope, 0.5 * slope.mean()))) ** 2)
        flow = np.clip(0.5 + 0.35 * smooth_noise(shape, rng, smoothness_px=max(1.2, 0.012 * frame)), 0, 1)
        mesh += 0.6 * line * flow
    return np.clip(mesh, 0, 1)


def foveal_distance(
    shape: tuple[int, int], rng: np.random.Generator, frame: float, origin: tuple[float, float]
) -> np.ndarray:
    """Distance from the fovea's centre in frames, with ragged contours like those of an avascular zone."""
    rows, columns = np.indices(shape, dtype=np.float32)
    ragged = 1 + 0.10 * smooth_noise(shape, rng, smoothness_px=0.035 * frame)
    return np.hypot((rows - origin[0]) / frame, (columns - origin[1]) / (1.1 * frame)) * ragged


def superficial_plexus(vessels: np.ndarray, mesh: np.ndarray, distance: np.ndarray, faz: float) -> np.ndarray:
    """Flow signal of the superficial plexus: vessels over capillaries that surround the fovea.

    Args:
        vessels: (height, width) from `draw_vessels`.
        mesh: (height, width) from `capillaries`, for one scan.
        distance: (height, width) from `foveal_distance`.
        faz: radius of the avascular zone, frames.
    """
    perfused = np.clip((distance - faz) / 0.02 + 0.5, 0, 1)
    # The layer, and with it the signal, gets thinner towards the fovea.
    density = perfused * (0.55 + 0.45 * np.clip((distance - faz) / 0.22, 0, 1))
    ring = 0.30 * np.exp(-0.5 * ((distance - 1.12 * faz) / 0.010) ** 2)
    tissue = 0.07 + density * (0.10 + 0.30 * mesh) + ring * (0.4 + 0.6 * mesh)
    return np.maximum(tissue, vessels * perfused + (1 - vessels) * tissue * 0.75).astype(np.float32)


def choroidal_bed(shape: tuple[int, int], rng: np.random.Generator, frame: float) -> np.ndarray:
    """Flow signal of the choroid: layers of thick, sinuous, crossing vessels; float32 `shape`, [0, 1]."""
    heading = rng.uniform(0, 2 * math.pi)
    bed = np.full(shape, 0.20, np.float32)
    # Haller's layer of wide vessels below, Sattler's layer of medium and small vessels above it.
    for count, calibre, brightness in ((30, 0.026, 0.32), (44, 0.016, 0.40), (64, 0.009, 0.46)):
        layer = _sinuous_vessels(shape, rng, frame, count, calibre, heading + rng.normal(0, 0.5))
        bed = bed * (1 - 0.45 * layer) + brightness * layer
    return bed


def _sinuous_vessels(
    shape: tuple[int, int], rng: np.random.Generator, frame: float, count: int, calibre: float, heading: float
) -> np.ndarray:
    """Coverage by `count` vessels of radius about `calibre` (frames), along a winding field of directions."""
    wide = heading + 0.55 * smooth_noise(shape, rng, smoothness_px=0.16 * frame)
    field = wide + 0.45 * smooth_noise(shape, rng, smoothness_px=2.5 * calibre * frame)
    starts = rng.uniform(-0.05, 1.05, (count, 2)) * np.array(shape)
    paths = np.concatenate([_stream(field, starts, -1.0)[:0:-1], _stream(field, starts, 1.0)])
    canvas = np.zeros(shape, np.float32)
    for path, radius in zip(np.moveaxis(paths, 1, 0), calibre * frame * rng.uniform(0.6, 1.25, count)):
        # Discs up to their radius apart still have a smooth outline.
        centres = path[:: max(1, int(0.9 * radius))]
        _stamp(canvas, centres, np.full(len(centres), radius), frame, brightness=float(rng.uniform(0.7, 1.0)))
    return canvas


def _stream(field: np.ndarray, starts: np.ndarray, sign: float) -> np.ndarray:
    """Lines along a field of directions (radians), in steps of a pixel: (steps, lines, 2), (row, column)."""
    upper = np.array(field.shape) - 1
    points = [starts]
    for _ in range(int(0.45 * max(field.shape))):
        row, column = np.clip(np.rint(points[-1]), 0, upper).astype(int).T
        angle = field[row, column]
        points.append(points[-1] + sign * np.stack([np.sin(angle), np.cos(angle)], axis=-1))
    return np.stack(points)


def replace_flow(
    shared: np.ndarray, other: np.ndarray, rng: np.random.Generator, *, share: float, patch_px: float
) -> np.ndarray:
    """Replaces patches of `shared` by `other`: the capillaries whose flow differs from scan to scan.

    Args:
        shared, other: (height, width).
        rng: source of randomness.
        share: approximate share of the area that is replaced.
        patch_px: smoothness of the patches, pixels.
    """
    # Approximate quantile of the normal distribution, good between 5 and 95 %.
    threshold = math.log((1 - share) / share) / 1.702
    where = np.clip(0.5 + 2.0 * (smooth_noise(shared.shape, rng, smoothness_px=patch_px) - threshold), 0, 1)
    return shared + where * (other - shared)
