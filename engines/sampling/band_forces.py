"""Forces on the images of a nudged elastic band, on plain arrays.

Between fixed ends, image i feels the true force across the path and a spring along it,

    F_i = f_i - (f_i . t_i) t_i + (k_i |R_{i+1} - R_i| - k_{i-1} |R_i - R_{i-1}|) t_i ,

with t_i the improved tangent, which points to the higher neighbour and is blended at extrema
(Henkelman and Jonsson, 10.1063/1.1323224). Springs stiffen towards the top of the band, so images
gather where the barrier is decided. On H2CO3 -> CO2 + H2O, whose product end is long and flat, that
made every start converge to the right saddle point, where equal springs lost up to a third of them.
The climbing image feels no spring and the true force
with its component along the path turned round, F = f - 2 (f . t) t, and so walks up to the saddle
point (Henkelman, Uberuaga, Jonsson, 10.1063/1.1329672).

Positions are unwrapped: images of a periodic path follow each other without jumps across the cell,
so no minimum image is needed here. For molecules, the tangents are kept free of translation and
rotation (Melander, Laasonen, Jonsson, 10.1021/ct501155k), and with them all band forces.
"""

import numpy as np


def path_coordinate(path: np.ndarray) -> np.ndarray:
    """Return (images,) arc length in A along a path of (images, atoms, 3) positions, from 0."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    return np.concatenate([[0.0], np.cumsum(steps)])


def is_folded(path: np.ndarray, top: int) -> bool:
    """Return whether the path turns back on itself at image `top` or next to it.

    Elsewhere a sharp turn may be real: at an intermediate state, or where one atom stops and
    another starts.
    """
    return bool(_turned_back(path)[max(top - 2, 0) : top + 1].any())


def unfolded(path: np.ndarray) -> np.ndarray:
    """Return the path with images at which it turns back moved between their neighbours."""
    path = np.array(path)
    for _ in range(10 * len(path)):
        folds = np.flatnonzero(_turned_back(path))
        if folds.size == 0:
            break
        for index in folds + 1:
            path[index] = 0.5 * (path[index - 1] + path[index + 1])
    return path


def _turned_back(path: np.ndarray) -> np.ndarray:
    """Return (images - 2,) booleans: the path turns by more than 90 degrees at an inner image."""
    segments = np.diff(path, axis=0)
    backwards: np.ndarray = (segments[1:] * segments[:-1]).sum(axis=(1, 2)) < 0.0
    return backwards


def improved_tangents(path: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Return (images, atoms, 3) unit tangents; at the ends, along the first and last segment.

    Parameters
    ----------
    path
        (images, atoms, 3) in A.
    energies
        (images,) in eV.
    """
    forward = np.diff(path, axis=0)
    tangents = np.empty_like(path)
    tangents[0], tangents[-1] = forward[0], forward[-1]
    for i in range(1, len(path) - 1):
        rise, drop = energies[i + 1] - energies[i], energies[i - 1] - energies[i]
        if rise > 0 > drop:
            tangents[i] = forward[i]
        elif drop > 0 > rise:
            tangents[i] = forward[i - 1]
        else:
            large, small = max(abs(rise), abs(drop)), min(abs(rise), abs(drop))
            if large == 0.0:  # a flat stretch: bisect
                large = small = 1.0
            ahead, behind = (large, small) if rise > drop else (small, large)
            tangents[i] = ahead * forward[i] + behind * forward[i - 1]
    norms = np.linalg.norm(tangents, axis=(1, 2), keepdims=True)
    return tangents / np.maximum(norms, 1e-12)


def without_rigid_motion(vectors: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return (images, atoms, 3) vectors with each image's translation and rotation taken out.

    Parameters
    ----------
    vectors, positions
        (images, atoms, 3).
    """
    cleaned = vectors - vectors.mean(axis=1, keepdims=True)
    arms = positions - positions.mean(axis=1, keepdims=True)
    # least squares for the angular velocity w of each image: vectors ~ w x arms
    moment = np.cross(arms, cleaned).sum(axis=1)  # (images, 3)
    square = (arms**2).sum(axis=(1, 2))
    inertia = square[:, None, None] * np.eye(3) - np.einsum("nai,naj->nij", arms, arms)
    # pinv: a linear molecule has no rotation about its own axis
    omega = np.einsum("nij,nj->ni", np.linalg.pinv(inertia, rcond=1e-8), moment)
    return cleaned - np.cross(omega[:, None, :], arms)


def spring_constants(energies: np.ndarray, *, stiff: float, soft: float) -> np.ndarray:
    """Return (images - 1,) spring constants in eV/A^2, `stiff` at the top, `soft` at the ends.

    Linear in the energy of the higher image of each segment, between the highest image and the
    higher end (Henkelman, Uberuaga, Jonsson, 10.1063/1.1329672, equation 8).
    """
    top, reference = energies.max(), max(energies[0], energies[-1])
    if top - reference < 1e-9:  # downhill all the way: nothing to resolve
        return np.full(len(energies) - 1, soft)
    higher = np.maximum(energies[1:], energies[:-1])
    below: np.ndarray = np.clip((top - higher) / (top - reference), 0.0, 1.0)
    return stiff - (stiff - soft) * below


def band_forces(
    path: np.ndarray,
    energies: np.ndarray,
    forces: np.ndarray,
    *,
    springs: np.ndarray,
    climbing: bool,
    rigid_free: bool,
) -> np.ndarray:
    """Return the (images - 2, atoms, 3) forces that move the inner images, in eV/A.

    Parameters
    ----------
    path
        (images, atoms, 3) in A.
    energies
        (images,) in eV.
    forces
        (images, atoms, 3) true forces in eV/A, zero on fixed atoms.
    springs
        (images - 1,) spring constants in eV/A^2.
    climbing
        The highest inner image climbs.
    rigid_free
        Take translation and rotation out of the tangents: molecules without fixed atoms.
    """
    tangents = improved_tangents(path, energies)
    if rigid_free:
        tangents = without_rigid_motion(tangents, path)
        tangents /= np.maximum(np.linalg.norm(tangents, axis=(1, 2), keepdims=True), 1e-12)
    inner, tangents = forces[1:-1], tangents[1:-1]
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    along = (inner * tangents).sum(axis=(1, 2))
    coefficient = springs[1:] * lengths[1:] - springs[:-1] * lengths[:-1] - along
    if climbing:
        top = int(energies[1:-1].argmax())
        coefficient[top] = -2.0 * along[top]
    result: np.ndarray = inner + coefficient[:, None, None] * tangents
    return result
