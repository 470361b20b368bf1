"""What is not imported is named."""

from typing import Any

import pytest

from tace_al.core.errors import CheckpointError
from tace_al.model.reference.checkpoint import ReferenceCheckpoint
from tace_al.model.reference.refusals import refuse_unsupported

CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "num_levels": 1,
    "radial_basis": {"radial_basis": "j0", "distance_transform": None},
    "radial_mlp": {"hidden": [64, 64, 64], "act": "silu"},
    "angular_basis": {"norm": True, "traceless": True},
    "inter": {"l1l2": None},
    "prod": {"correlation": 3},
    "readout_emlp": {"act": "silu"},
    "universal_embedding": {},
}


def checkpoint(targets: tuple[str, ...] = ("energy",), **changes: Any) -> ReferenceCheckpoint:
    """Return a checkpoint of plain settings with some changed."""
    config = dict(CONFIG)
    for key, value in changes.items():
        config[key] = (
            {**config[key], **value} if isinstance(value, dict) and key in config else value
        )
    return ReferenceCheckpoint(config=config, state={}, targets=targets, single_precision=False)


def embedding(kind: str, name: str, **options: Any) -> dict[str, Any]:
    """Return the settings of one embedding."""
    return {"universal_embedding": {kind: {name: {"enable": True, **options}}}}


def test_plain_settings_pass() -> None:
    """Derivatives of the energy need nothing of their own."""
    refuse_unsupported(checkpoint(("energy", "forces", "stress", "born_effective_charges")))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"short_range": {"zbl": {"enable": True}}}, "ZBL"),
        ({"long_range": {"les": {"enable": True}}}, "latent Ewald"),
        ({"radial_mlp": {"bias": True}}, "biases in the radial network"),
        ({"inter": {"conv_weights": ["edge_ij", "node_j"]}}, "do not vanish at the cutoff"),
        ({"inter": {"normalizer": "density_v1"}}, "density_v1"),
        ({"radial_basis": {"radial_basis": "chebychev"}}, "chebychev"),
        ({"radial_basis": {"distance_transform": "Agnesi"}}, "distance transform"),
        ({"radial_basis": {"trainable": True}}, "trained radial basis"),
        ({"radial_mlp": {"act": "tanh"}}, "tanh"),
        ({"radial_mlp": {"hidden": [[64], [64, 64]]}}, "depths"),
        ({"angular_basis": {"traceless": False}}, "reducible"),
        ({"inter": {"nonlinearity": {"type": "gated"}}}, "nonlinearity"),
        ({"inter": {"use_resnet": True}}, "use_resnet"),
        ({"prod": {"correlation": 5}}, "order 5"),
        ({"max_neighbors": 40}, "neighbours"),
        ({"num_levels": 2}, "levels"),
        ({"readout_emlp": {"enable_uie_readout": True}}, "readout of the embeddings"),
        (embedding("invariant", "initial_collinear_magmoms"), "initial_collinear_magmoms"),
        (embedding("invariant", "spin_on"), "spin_on"),
        (embedding("equivariant", "magnetic_field"), "magnetic_field, axial in a polar channel"),
        (embedding("equivariant", "initial_noncollinear_magmoms"), "axial"),
        (embedding("equivariant", "electric_field", gate="silu"), "gate"),
        ({"targets": ("energy", "charges")}, "charges"),
        ({"targets": ("direct_dipole",)}, "without energies"),
    ],
)
def test_what_differs_is_refused_by_name(changes: dict[str, Any], name: str) -> None:
    """Every setting without an exact counterpart, and terms that are not right."""
    with pytest.raises(CheckpointError, match="cannot be imported exactly") as caught:
        refuse_unsupported(checkpoint(**changes))
    assert name in str(caught.value)
