"""The reference's readouts, energies and embeddings as ours.

    E_i = E0[level, Z] + scale[level, Z] sum_layers readout(h_i) + shift[level, Z]

Each of its levels becomes a head. With several levels its last readout has the hidden units of all
of them side by side and masks those of the others.

Invariant embeddings are summed and go through one SiLU: h^0 += SiLU(sum_k P_k f_k(x_k)). Tables are
multiplied with their P_k, and so are the last layers of the small networks of real numbers; a total
charge, a real number there and an integer here, is tabulated.
"""

import math

import torch
from torch import Tensor

from tace_al.model.embeddings import INTEGERS, TEMPERATURE_UNIT
from tace_al.model.radial import SILU_GAIN
from tace_al.model.reference.refusals import INVARIANT_NAMES
from tace_al.model.reference.settings import ReferenceNetwork
from tace_al.model.reference.stored_weights import StoredWeights, storable


def head_states(stored: StoredWeights, network: ReferenceNetwork) -> dict[str, Tensor]:
    """Return E0, scale, shift and readouts of every head."""
    config = network.config
    num_levels, num_layers = max(network.levels) + 1, config.num_layers
    channels = config.layer_channels[0]
    names = [f"energy_readouts.{layer}." for layer in range(num_layers)]
    all_layers = f"{names[-1]}mlp.0.weight" in stored or f"{names[-1]}mlp_1.0.weight" in stored
    last = names[-1] if all_layers else names[0]
    inner, outer = ("mlp_1.0", "mlp_2.0") if num_levels > 1 else ("mlp.0", "mlp.2")
    hidden, out = stored.take(f"{last}{inner}.weight"), stored.take(f"{last}{outer}.weight")
    hidden = hidden * math.sqrt(2.0 / hidden.shape[1])
    out = out / math.sqrt(out.shape[1])
    width = len(out) // num_levels
    linears = [
        stored.take(f"{name}mlp.0.weight") if all_layers else torch.zeros(channels, num_levels)
        for name in names[:-1]
    ]
    e0 = stored.take("atomic_energy_layer.atomic_energy")
    scale, shift = stored.take("scale_shift.scale"), stored.take("scale_shift.shift")
    state = {}
    for head, level in zip(config.heads, network.levels, strict=True):
        own = slice(level * width, (level + 1) * width)
        ours = f"heads.{head}."
        state[f"{ours}e0"], state[f"{ours}scale"] = e0[level], scale[level]
        state[f"{ours}shift"] = shift[level]
        state[f"{ours}hidden"] = storable(hidden[:, own], channels)
        state[f"{ours}out"] = storable(out[own, level : level + 1], width) / SILU_GAIN
        for layer, linear in enumerate(linears):
            applied = linear[:, level : level + 1] / math.sqrt(len(linear))
            state[f"{ours}linear.{layer}"] = storable(applied, channels)
    return state


def field_states(stored: StoredWeights, network: ReferenceNetwork) -> dict[str, Tensor]:
    """Return the electric field's weights of every layer."""
    if "electric_field" not in network.config.embeddings:
        return {}
    state = {}
    for index in range(network.config.num_layers):
        theirs = f"descriptor.uee_embeddings.{index}.embeddings.electric_field."
        of_species = stored.take(f"{theirs}element_weights") * network.field_factor
        weight = of_species[:, None] * stored.take(f"{theirs}channel_weights")
        if f"{theirs}linear.weight" in stored:
            linear = stored.take(f"{theirs}linear.weight")
            weight = weight @ linear / math.sqrt(len(linear))
        state[f"message_conditions.{index}.electric.weight"] = weight
    return state


def embedding_states(stored: StoredWeights, network: ReferenceNetwork) -> dict[str, Tensor]:
    """Return the tables and small networks of invariant embeddings."""
    config = network.config
    state: dict[str, Tensor] = {}
    if not network.invariants:
        return state
    project = stored.take("descriptor.uie_embedding.project.0.weight").T
    blocks = project.split(len(project) // len(network.invariants))
    for name, block in zip(network.invariants, blocks, strict=True):
        ours, theirs = INVARIANT_NAMES[name], f"descriptor.uie_embedding.embeddings.{name}."
        if f"{theirs}weight" in stored:
            table = stored.take(f"{theirs}weight") @ block
            if name == "level":
                rows = zip(config.heads, table, strict=True)
                state |= {f"scalar_embeddings.levels.{head}": row for head, row in rows}
            else:
                state[f"scalar_embeddings.tables.{ours}"] = tabulated(ours, table)
            continue
        first, last = stored.take(f"{theirs}0.weight")[:, 0], stored.take(f"{theirs}2.weight").T
        if ours in INTEGERS:
            lowest, highest = INTEGERS[ours]
            values = torch.arange(lowest, highest + 1).double()
            hidden = torch.nn.functional.silu(values[:, None] * first)
            state[f"scalar_embeddings.tables.{ours}"] = hidden @ last @ block
            continue
        unit = TEMPERATURE_UNIT if ours == "electronic_temperature" else 1.0
        width = config.embedding_width
        state[f"scalar_embeddings.networks.{ours}.first"] = first * unit
        state[f"scalar_embeddings.networks.{ours}.bias"] = torch.zeros_like(first)
        state[f"scalar_embeddings.networks.{ours}.last"] = storable(last @ block, width) / SILU_GAIN
    return state


def tabulated(name: str, table: Tensor) -> Tensor:
    """Return the reference's rows 0, 1, ... as the rows of one of our tables.

    A value the reference has no row for, and could not evaluate, has none here: its row is NaN.
    """
    lowest, highest = INTEGERS[name]
    rows = torch.full((highest - lowest + 1, table.shape[1]), torch.nan, dtype=table.dtype)
    for value in range(max(lowest, 0), min(highest + 1, len(table))):
        rows[value - lowest] = table[value]
    return rows
