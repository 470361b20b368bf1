"""Options of `tace-al phonons`, each written once, and what they say together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tace_al.core.errors import ConfigError

Triple = tuple[int, int, int]

Supercell = Annotated[
    Triple | None,
    typer.Option(
        "--supercell",
        metavar="N N N",
        help="Repeats of the unit cell; default: at least 10 Å between opposite faces.",
    ),
]
Mesh = Annotated[
    Triple | None,
    typer.Option("--mesh", metavar="N N N", help="q-points; default: dense and odd."),
]
Relax = Annotated[bool, typer.Option("--relax/--no-relax", help="Relax cell and positions first.")]
AnalyticHessian = Annotated[
    bool, typer.Option("--hessian", help="Models' analytic Hessian in place of displacements.")
]
Displacement = Annotated[
    float | None,
    typer.Option("--displacement", min=1e-5, metavar="Å", help="Default: 0.01; models 0.002."),
]
BothWays = Annotated[
    bool, typer.Option("--plusminus", help="Move every atom both ways, not only where needed.")
]
ForcesFile = Annotated[
    Path | None,
    typer.Option(
        "--forces",
        metavar="FILE",
        help="Displaced supercells with forces, in place of a model or calculator.",
    ),
]
Born = Annotated[
    Path | None,
    typer.Option("--born", metavar="FILE", help="phonopy's BORN file, for polar crystals."),
]
QPoints = Annotated[
    list[str] | None,
    typer.Option("--q-point", metavar="'X Y Z'", help="Frequencies at this point too. Repeat."),
]
PrimitiveCell = Annotated[
    Literal["auto", "unit"],
    typer.Option("--primitive", help="Whose bands: the primitive cell's, or the one given."),
]
GammaCentred = Annotated[
    bool, typer.Option("--gamma-centred", help="Let even meshes hold the Γ point.")
]
SumRules = Annotated[
    bool, typer.Option("--sum-rules/--no-sum-rules", help="Impose the acoustic sum rule.")
]
Precision = Annotated[
    Literal["float32", "float64"] | None,
    typer.Option("--dtype", help="Arithmetic of models; default: float64."),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhononSettings:
    """What the options of the command say.

    Parameters
    ----------
    supercell, mesh
        None for the default.
    relax
        Relax cell and positions first.
    hessian
        Take models' analytic Hessians.
    displacement
        Angstrom, None for the default.
    both_ways
        Move every atom both ways.
    q_points
        Points in the reciprocal basis of the primitive cell.
    primitive
        "auto" or "unit".
    gamma_centred
        Let even meshes hold the Gamma point.
    symmetrise
        Impose the acoustic sum rule.
    """

    supercell: Triple | None = None
    mesh: Triple | None = None
    relax: bool = True
    hessian: bool = False
    displacement: float | None = None
    both_ways: bool = False
    q_points: tuple[tuple[float, float, float], ...] = ()
    primitive: Literal["auto", "unit"] = "auto"
    gamma_centred: bool = False
    symmetrise: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers below 1 and displacements beside a Hessian."""
        for name, numbers in (("supercell", self.supercell), ("mesh", self.mesh)):
            if numbers is not None and min(numbers) < 1:
                raise ConfigError(f"--{name} is {numbers}; give three whole numbers of at least 1")
        if self.hessian and (self.displacement is not None or self.both_ways):
            raise ConfigError(
                "--hessian displaces nothing; leave out --displacement and --plusminus"
            )


def points_from_texts(texts: list[str] | None) -> tuple[tuple[float, float, float], ...]:
    """Return q-points from the texts of --q-point.

    >>> points_from_texts(["0.5 0 0", "1/3,1/3,0"])
    ((0.5, 0.0, 0.0), (0.3333333333333333, 0.3333333333333333, 0.0))

    Raises
    ------
    ConfigError
        A text is not three numbers.
    """
    points = []
    for text in texts or []:
        try:
            x, y, z = (_number(part) for part in text.replace(",", " ").split())
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(
                f"--q-point {text!r} is not three numbers; write it as '0.5 0 0' or '1/3 1/3 0'"
            ) from error
        points.append((x, y, z))
    return tuple(points)


def _number(text: str) -> float:
    """Return a number or a fraction."""
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)
