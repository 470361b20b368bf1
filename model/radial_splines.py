"""Splines in place of the radial networks of a finished model.

At inference radial weights are functions of the distance alone: tabled once, they are read inside
the sums over neighbours (`tace_al.model.kernels`). A spline is no part of a model: whoever
evaluates holds it, and makes it again when weights have changed.
"""

import logging
from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from tace_al.model.config import TaceConfig
from tace_al.model.interaction import SpectralInteraction
from tace_al.model.kernels import RadialSpline, compiled
from tace_al.model.radial import polynomial_cutoff
from tace_al.model.tace import TORCH_DTYPES, Tace

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest error of a slope, as a fraction of the largest: 1e-7 eV/Angstrom on forces of 1."""


def has_splines(config: TaceConfig) -> bool:
    """Return whether a network's radial weights are functions of r that only its sums read."""
    return (
        not config.species_radial
        and not config.density_normalisation
        and config.distance_transform == "none"
        and config.length_offset == 0.0
        and config.radial_envelope == "basis"
        and not {"electric_field", "magnetic_moments"} & set(config.embeddings)
        and all(product != "moment" for product in config.layer_products)
    )


def radial_splines(
    models: Sequence[Tace], *, tolerance: float = TOLERANCE
) -> list[tuple[RadialSpline, ...]]:
    """Return the splines of every layer of each model, pieces of one length in a layer.

    Nothing for any of them where sums are not compiled, or weights are no functions of r alone or
    too rough for the tolerance, which is logged.

    Parameters
    ----------
    models
        Of one shape, on one device.
    tolerance
        Largest error of a weight's slope, as a fraction of the largest slope.
    """
    device = models[0].embedding.device
    if device.type != "cpu" or not has_splines(models[0].config) or compiled() is None:
        return [() for _ in models]
    try:
        return _of_every_layer(models, tolerance)
    except ValueError as error:
        logger.warning("radial weights are read from the networks, more slowly: %s", error)
        return [() for _ in models]


def _of_every_layer(models: Sequence[Tace], tolerance: float) -> list[tuple[RadialSpline, ...]]:
    """Return the splines of every layer of each model; ValueError where a function is too rough."""
    layers = range(models[0].config.num_layers)
    weights = [[_weights_of(exact, layer) for layer in layers] for exact in map(_exact, models)]
    splines = []
    for layer in layers:
        functions = [of_layer[layer] for of_layer in weights]
        splines.append(_of_one_spacing(functions, models[0].config, tolerance))
    return [tuple(of_model) for of_model in zip(*splines, strict=True)]


@final
class SplineKeeper:
    """The splines of models, made at the first use and again when weights have changed."""

    def __init__(self, models: Sequence[Tace]) -> None:
        self._models = tuple(models)
        self._weights = [
            parameter
            for model in self._models
            for name, parameter in model.interactions.named_parameters()
            if ".radial." in name
        ]
        self._splines: list[tuple[RadialSpline, ...]] = []
        self._made_from: list[tuple[int, int]] = []

    def current(self) -> list[tuple[RadialSpline, ...]]:
        """Return the splines of every layer of each model."""
        state = [(weight.data_ptr(), weight._version) for weight in self._weights]
        if state != self._made_from:
            # in this order: another thread must not take the former splines for those of `state`
            self._splines = radial_splines(self._models)
            self._made_from = state
        return self._splines


def _exact(model: Tace) -> Tace:
    """Return a model in float64."""
    return model if model.config.dtype == "float64" else model.as_dtype("float64")


def _of_one_spacing(
    functions: Sequence[Callable[[Tensor], Tensor]], config: TaceConfig, tolerance: float
) -> list[RadialSpline]:
    """Return the splines of one layer of every model."""
    dtype = TORCH_DTYPES[config.dtype]

    def splines(fewest: int) -> list[RadialSpline]:
        return [
            RadialSpline.of(
                weights, config.cutoff, dtype=dtype, tolerance=tolerance, fewest_pieces=fewest
            )
            for weights in functions
        ]

    found = splines(1)
    pieces = max(len(spline.table) for spline in found)
    return found if all(len(spline.table) == pieces for spline in found) else splines(pieces)


def _weights_of(model: Tace, layer: int) -> Callable[[Tensor], Tensor]:
    """Return W(r) of a layer."""
    interaction = model.interactions[layer]
    assert isinstance(interaction, SpectralInteraction)

    def weights(r: Tensor) -> Tensor:
        envelope = polynomial_cutoff(r, model.config.cutoff, model.config.cutoff_power)
        values: Tensor = interaction.radial(model.radial_basis(r, envelope))
        return values.reshape(len(r), interaction.num_paths, -1)

    return weights
