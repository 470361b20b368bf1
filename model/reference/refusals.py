"""What a reference checkpoint may not have, each by its name.

The reference package has the paper's network and many variants. Imported are those whose equations
are, or can be rewritten exactly as, ours. Left out on purpose, because they are not right: its ZBL,
which is applied before the energy scale and has constants of its own; magnetic fields and moments,
axial, added to polar channels; radial weights that do not vanish at the cutoff; uniform charges,
whose sign is wrong; precomputed products with pseudo-tensors among ordinary features
(`product_paths`); latent Ewald through a package that is not free to use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tace_al.core.errors import CheckpointError
from tace_al.model.config import FIDELITY
from tace_al.model.reference.checkpoint import ReferenceCheckpoint

DERIVED = frozenset(
    {
        "energy",
        "forces",
        "edge_forces",
        "stress",
        "virials",
        "atomic_virials",
        "atomic_stresses",
        "hessians",
        "polarization",
        "conservative_dipole",
        "conservative_polarizability",
        "born_effective_charges",
    }
)
"""Properties that are derivatives of the energy: nothing of their own is stored."""

INVARIANT_NAMES = {
    "level": FIDELITY,
    "total_charge": "total_charge",
    "spin_multiplicity": "spin_multiplicity",
    "charges": "initial_charges",
    "electron_temperature": "electronic_temperature",
}
"""Invariant embeddings of the reference and what they are called here."""


def refuse_unsupported(checkpoint: ReferenceCheckpoint) -> None:
    """Refuse, by name, every setting that has no exact counterpart.

    Raises
    ------
    CheckpointError
        All of them in one sentence.
    """
    config = checkpoint.config
    found = [reason for reason, present in (*_network(config), *_inputs(config)) if present]
    direct = sorted(set(checkpoint.targets) - DERIVED)
    if direct:
        found.append(f"the targets {', '.join(direct)} (only energies and their derivatives are)")
    if "energy" not in checkpoint.targets:
        found.append("a model without energies")
    if any("lora_" in name for name in checkpoint.state):
        found.append("unmerged LoRA weights (merge them with tace-convert)")
    if found:
        raise CheckpointError(
            f"this checkpoint has what cannot be imported exactly: {'; '.join(found)}"
        )


def _network(config: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the unsupported settings of the network and whether each is on."""
    radial, inter, prod = config["radial_basis"], config["inter"], config["prod"]
    hidden = config["radial_mlp"].get("hidden", [64, 64, 64])
    depths = {len(widths) for widths in hidden} if isinstance(hidden[0], Sequence) else {0}
    inside = bool(radial.get("apply_cutoff", True))
    correlation = prod.get("correlation", 3)
    orders = [correlation] if isinstance(correlation, int) else correlation
    return [
        (
            f"the radial basis {radial.get('radial_basis')}",
            radial.get("radial_basis", "j0") not in ("j0", "bessel"),
        ),
        ("a distance transform", radial.get("distance_transform") is not None),
        ("a trained radial basis", bool(radial.get("trainable", False))),
        ("radial networks of different depths", len(depths) > 1),
        (
            "biases in the radial network under apply_cutoff: it does not vanish at the cutoff",
            inside and bool(config["radial_mlp"].get("bias", False)),
        ),
        (
            f"the activation {config['radial_mlp'].get('act')}",
            config["radial_mlp"].get("act", "silu") != "silu",
        ),
        ("reducible harmonics", not config["angular_basis"].get("traceless", True)),
        (
            "radial weights from species under apply_cutoff: they do not vanish at the cutoff",
            inside and reads_species(config),
        ),
        (
            "radial weights from species with other widths in each layer",
            reads_species(config)
            and isinstance(hidden[0], Sequence)
            and hidden != hidden[:1] * len(hidden),
        ),
        (
            f"the normaliser {inter.get('normalizer')}",
            inter.get("normalizer", "avg_num_neighbors") != "avg_num_neighbors",
        ),
        (
            "a nonlinearity of the message",
            (inter.get("nonlinearity") or {}).get("type") is not None,
        ),
        ("a residual added to the message (use_resnet)", bool(inter.get("use_resnet", False))),
        (f"a product of order {max(orders)}", max(orders) > 4),
    ]


def _inputs(config: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the unsupported settings of readouts, terms and embeddings, and whether each is on."""
    readout = config["readout_emlp"]
    reasons = [
        ("biases in the readout", bool(readout.get("bias", False))),
        (
            f"the activation {readout.get('act')} in the readout",
            readout.get("act", "silu") != "silu",
        ),
        ("a readout of the embeddings", bool(readout.get("enable_uie_readout", False))),
        (
            "ZBL, which the reference scales with the learned energy",
            _enabled(config.get("short_range") or {}, "zbl"),
        ),
        (
            "latent Ewald of the package les",
            _enabled(config.get("long_range") or {}, "les"),
        ),
        ("a limited number of neighbours", config.get("max_neighbors") is not None),
        (
            "several levels without a head each (num_levels without use_multi_head)",
            int(config.get("num_levels", 1)) > 1 and not config.get("use_multi_head", False),
        ),
    ]
    for name in enabled_embeddings(config, "invariant"):
        settings = config["universal_embedding"]["invariant"][name]
        signed = " (its sign changes the energy)" if "magmoms" in name else ""
        reasons.append((f"the embedding {name}{signed}", name not in INVARIANT_NAMES))
        activation = settings.get("act", "silu")
        reasons.append((f"the activation {activation} of {name}", activation != "silu"))
    for name in enabled_embeddings(config, "equivariant"):
        settings = config["universal_embedding"]["equivariant"][name]
        axial = name != "electric_field"
        reasons.append((f"the embedding {name}, axial in a polar channel", axial))
        gated = settings.get("gate") not in (None, "None", "null")
        reasons.append((f"a gate on the embedding {name}", gated and not axial))
    return reasons


def reads_species(config: Mapping[str, Any]) -> bool:
    """Tell whether radial weights read the species of their atoms."""
    return list(config["inter"].get("conv_weights") or ["edge_ij"]) != ["edge_ij"]


def _enabled(terms: Mapping[str, Any], name: str) -> bool:
    """Tell whether an energy term is switched on."""
    return bool((terms.get(name) or {}).get("enable", False))


def enabled_embeddings(config: Mapping[str, Any], kind: str) -> list[str]:
    """Return the names of the "invariant" or "equivariant" embeddings that are switched on."""
    settings = (config.get("universal_embedding") or {}).get(kind) or {}
    return [name for name, options in settings.items() if (options or {}).get("enable", False)]
