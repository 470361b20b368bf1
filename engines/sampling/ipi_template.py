"""Does the template fit what i-PI sends? It sends positions alone, in an order of its own.

Forces of atoms with exchanged elements are nonsense that looks like forces. Where the first
structure is the template's with its atoms in another order, which is what the other format of a
file or a sorting programme leaves behind, that can be proven: every atom stands on a site of the
template, one atom a site, and some on a site of another element. A structure that has moved on
(a restarted run) proves nothing and passes.
"""

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from tace_al.core.errors import SamplerError

SAME_SITE = 0.3
"""Angstrom within which an atom stands on a site."""


def refuse_reordered(template: Atoms, positions: np.ndarray) -> None:
    """Refuse a structure whose atoms stand on the template's sites in another order.

    Parameters
    ----------
    template
        Its elements are taken for those of the structure, atom by atom.
    positions
        (atoms, 3) in A.

    Raises
    ------
    SamplerError
        The order of elements is another.
    """
    sites, places = template.positions, positions
    if not template.pbc.any():  # a server may have centred a molecule
        sites, places = sites - sites.mean(axis=0), places - places.mean(axis=0)
    gaps, nearest = cKDTree(sites).query(places)
    if gaps.max() > SAME_SITE or len(np.unique(nearest)) < len(nearest):
        return
    wrong = np.flatnonzero(template.numbers[nearest] != template.numbers)
    if wrong.size:
        first, site = int(wrong[0]), int(nearest[wrong[0]])
        raise SamplerError(
            f"atom {first} that the server sends stands where the template has atom {site} "
            f"({template.symbols[site]}), but atom {first} of the template is "
            f"{template.symbols[first]}; give the structure that i-PI's input starts from, with "
            "its atoms in the same order"
        )
