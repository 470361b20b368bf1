"""Random models of the real tace==0.1.0, with what they predict. Run by the tests, not imported.

    PYTHONPATH=.venv/reference-tace python make_checkpoints.py FOLDER

writes frames.traj and for every case NAME.pt (as `tace-export --backend state_dict` does),
NAME.whole.pt (the pickled model) and NAME.npz (its outputs, float64), and some other files.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from tace.dataset.element import TorchElement
from tace.dataset.graph import from_atoms
from tace.dataset.quantity import KEYS, KeySpecification, update_keyspec_from_kwargs
from tace.dataset.statistics import Statistics
from tace.models import TACEV1, WrapModelV1
from torch_geometric.loader import DataLoader

NUMBERS = [1, 6, 8]
ON = {"enable": True}
SPIN = {"enable": True, "num_embeddings": 5}
LEVELS = {"enable": True, "num_embeddings": 2}
RESPONSES = ("polarization", "conservative_polarizability", "born_effective_charges")

BASE: dict[str, Any] = {
    "cutoff": 4.0,
    "num_layers": 2,
    "lmax": 2,
    "Lmax": 1,
    "bias": False,
    "num_channel": 8,
    "num_channel_hidden": 8,
    "num_levels": 1,
    "use_multi_head": False,
    "radial_basis": {
        "radial_basis": "j0",
        "num_radial_basis": 8,
        "distance_transform": None,
        "polynomial_cutoff": 5,
        "order": 0,
        "trainable": False,
        "apply_cutoff": True,
    },
    "angular_basis": {"traceless": True, "norm": True},
    "radial_mlp": {"hidden": [16, 16], "act": "silu", "bias": False},
    "inter": {
        "l1l2": None,
        "conv_weights": ["edge_ij"],
        "normalizer": "avg_num_neighbors",
        "nonlinearity": {"type": None, "gate": "silu"},
        "sc": {"use_first_sc": False},
        "use_resnet": False,
    },
    "prod": {
        "l1l2": None,
        "l3l1": None,
        "correlation": 2,
        "element_aware": True,
        "coupled_channel": True,
        "precompute": False,
    },
    "readout_emlp": {"hidden_dim": [16], "act": "silu", "bias": False, "use_all_layer": True},
    "scale_shift": {
        "scale_type": "rms_forces",
        "shift_type": "mean_delta_energy_per_atom",
        "scale_trainable": False,
        "shift_trainable": False,
    },
    "short_range": {"zbl": {"enable": False}},
    "long_range": {"les": {"enable": False}},
    "conservation": {},
    "universal_embedding": {"invariant": {}, "equivariant": {}},
}


def invariant(**names: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of invariant embeddings."""
    return {"universal_embedding": {"invariant": names}}


def field(**options: Any) -> dict[str, Any]:
    """Return the configuration of an electric field."""
    return {"universal_embedding": {"equivariant": {"electric_field": {**ON, **options}}}}


CASES: dict[str, dict[str, Any]] = {
    "coupled": {},
    "one_layer": {"num_layers": 1, "prod": {"correlation": 3}},
    "three_layers": {
        "num_layers": 3,
        "lmax": [1, 2, 2],
        "radial_mlp": {"hidden": [[8, 16], [16, 16], [16, 12]]},
        "prod": {"correlation": [2, 3, 1]},
    },
    "order_3": {"lmax": 3, "Lmax": 2, "prod": {"correlation": 3}},
    "defaults": {
        "lmax": 3,
        "Lmax": 2,
        "radial_mlp": {"hidden": [64, 64, 64]},
        "prod": {"correlation": 3},
    },
    "order_3_channel_wise": {
        "lmax": 3,
        "Lmax": 1,
        "prod": {"correlation": 3, "coupled_channel": False},
    },
    "degree_1": {"lmax": 1, "prod": {"correlation": 3, "element_aware": False}},
    "channel_wise_for_all": {"prod": {"coupled_channel": False, "element_aware": False}},
    "mixed_weights": {"prod": {"coupled_channel": {0: True, 1: False}}},
    "restricted": {"inter": {"l1l2": "<="}, "prod": {"l1l2": "<=", "correlation": 3}},
    "filtered": {"inter": {"filter_combs": [[1, 2, 1, 1]]}, "prod": {"filter_idx": [1]}},
    "precomputed": {"prod": {"precompute": True, "coupled_channel": False}},
    "biases": {"bias": True, "num_layers": 3},
    "biases_channel_wise": {
        "bias": True,
        "num_channel_hidden": 6,
        "prod": {"coupled_channel": False, "element_aware": False},
    },
    "first_self_connection": {"inter": {"sc": {"use_first_sc": True}}},
    "few_message_channels": {"num_channel_hidden": 6},
    "other_numbers": {
        "radial_basis": {"polynomial_cutoff": 6, "num_radial_basis": 6},
        "angular_basis": {"norm": False},
        "readout_emlp": {"hidden_dim": [8]},
    },
    "last_readout_only": {"readout_emlp": {"use_all_layer": False}},
    "unscaled": {"scale_shift": {"scale_type": None, "shift_type": None}},
    "outer_cutoff": {"radial_basis": {"apply_cutoff": False}},
    "outer_cutoff_biases": {
        "radial_basis": {"apply_cutoff": False},
        "radial_mlp": {"bias": True, "hidden": [[8, 16], [16, 16]]},
    },
    "radial_species": {
        "radial_basis": {"apply_cutoff": False},
        "inter": {"conv_weights": ["edge_ij", "node_j", "node_i"]},
    },
    "radial_senders": {
        "radial_basis": {"apply_cutoff": False},
        "radial_mlp": {"bias": True},
        "inter": {"conv_weights": ["edge_ij", "node_j"]},
    },
    "levels": {"num_levels": 2, "use_multi_head": True},
    "levels_embedded": {"num_levels": 2, "use_multi_head": True, **invariant(level=LEVELS)},
    "levels_only_embedded": invariant(level=LEVELS, total_charge=ON),
    "spin": invariant(spin_multiplicity=SPIN),
    "four_embeddings": invariant(
        spin_multiplicity=SPIN, total_charge=ON, charges=ON, electron_temperature=ON
    ),
    "field": field(normalizer=0.7),
    "field_linear": field(linear=True),
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base with changes taken in, dictionaries within dictionaries."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if nested and result[key] else value
    return result


def make_frames() -> list[Atoms]:
    """Return molecules, a crystal of small cell, a lone atom and a pair almost out of reach."""
    rng = np.random.default_rng(0)
    crystal = bulk("C", "diamond", 3.6)
    crystal.symbols[0] = "O"
    strain = np.eye(3) + rng.normal(scale=0.03, size=(3, 3))
    crystal.set_cell(crystal.cell.array @ strain, scale_atoms=True)
    pair = Atoms("HO", [[0.0, 0.0, 0.0], [3.7, 0.3, 0.2]])
    frames = [molecule("CH3OH"), molecule("H2O"), crystal, Atoms("H"), pair]
    for index, atoms in enumerate(frames):
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        charges = rng.normal(size=len(atoms))
        atoms.set_array("charges", charges)
        atoms.set_array("initial_charges", charges.copy())
        temperature = 300.0 + 100.0 * index
        atoms.info.update(
            level=index % 2,
            total_charge=float(index - 2),
            spin_multiplicity=1 + index % 3,
            electron_temperature=temperature,
            electronic_temperature=temperature,
            electric_field=rng.normal(size=3),
        )
    return frames


def make_model(name: str, seed: int) -> tuple[WrapModelV1, dict[str, Any]]:
    """Return a random model and the content of its exported checkpoint."""
    config = merged(BASE, CASES[name])
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    embedded = config["universal_embedding"]
    names = [*embedded.get("invariant", {}), *embedded.get("equivariant", {})]
    targets = ["energy", "forces", "stress"]
    targets += RESPONSES if "electric_field" in names else ()
    statistics = [
        Statistics(
            atomic_numbers=NUMBERS,
            avg_num_neighbors=6.5,
            atomic_energy={z: float(rng.normal()) for z in NUMBERS},
            rms_forces={z: float(rng.uniform(1.0, 2.0)) for z in NUMBERS},
            mean_delta_energy_per_atom={z: float(rng.normal()) for z in NUMBERS},
        )
        for _ in range(config["num_levels"])
    ]
    network = TACEV1(
        **copy.deepcopy(config),
        statistics=statistics,
        target_property=targets,
        embedding_property=names,
        model_config=config,
    )
    model = WrapModelV1(network).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "element_weights" in key or "channel_weights" in key:  # one at the start
                weight.uniform_(0.5, 1.5)
            if key.endswith(".bias"):  # zero at the start
                weight.normal_()
            if "_embedding.mlp" in key:  # within 0.001 at the start
                weight.normal_()
    content = {
        "state_dict": model.state_dict(),
        "cfg": config,
        "target_property": targets,
        "embedding_property": names,
        "statistics": statistics,
    }
    return model, content


def predictions(model: WrapModelV1, frames: list[Atoms]) -> dict[str, np.ndarray]:
    """Return every target of a batch of frames."""
    network = model.readout_fn
    keys = update_keyspec_from_kwargs(KeySpecification(), KEYS)
    graphs = [
        from_atoms(
            TorchElement(NUMBERS),
            atoms,
            float(network.cutoff),
            max_neighbors=None,
            keyspec=keys,
            target_property=network.target_property,
            embedding_property=network.embedding_property,
            training=False,
            neighborlist_backend="ase",  # the default one fails for a single atom
        )
        for atoms in frames
    ]
    results = model(next(iter(DataLoader(graphs, batch_size=len(graphs)))))
    return {name: results[name].detach().numpy() for name in network.target_property}


def write_other_formats(folder: Path) -> None:
    """Write a trainer's checkpoint with averaged weights, single precision, an unknown part."""
    model, content = make_model("coupled", seed=1)
    averaged, average = make_model("coupled", seed=2)
    training = {
        "state_dict": {f"model.{key}": value for key, value in content["state_dict"].items()},
        "hyper_parameters": {
            "cfg": {"model": {"config": content["cfg"]}, "callbacks": {}},
            "target_property": content["target_property"],
            "statistics": content["statistics"],
        },
        "ema_state_dict": {"shadow_params": [p.detach() for p in averaged.parameters()]},
    }
    buffers = {key for key, _ in model.named_buffers()}
    mixed = {
        key: content["state_dict"][key] if key in buffers else value
        for key, value in average["state_dict"].items()
    }
    torch.save(training, folder / "trainer.ckpt")
    model.load_state_dict(mixed)
    np.savez(folder / "trainer.npz", **predictions(model, make_frames()))
    single = {k: v.float() if v.is_floating_point() else v for k, v in mixed.items()}
    torch.save({**content, "state_dict": single}, folder / "single.pt")
    more = {**content["state_dict"], "readout_fn.descriptor.extra.weight": torch.ones(2)}
    torch.save({**content, "state_dict": more}, folder / "unknown_part.pt")


def main(folder: Path) -> None:
    """Write everything."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    frames = make_frames()
    write(folder / "frames.traj", frames)
    for seed, name in enumerate(CASES):
        model, content = make_model(name, seed)
        np.savez(folder / f"{name}.npz", **predictions(model, frames))
        if name == "defaults":  # what a configuration may leave out
            content["cfg"] = {"cutoff": content["cfg"]["cutoff"]}
        torch.save(content, folder / f"{name}.pt")
        del model.readout_fn.model_config  # models made without the trainer have none
        torch.save(model, folder / f"{name}.whole.pt")
    write_other_formats(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
