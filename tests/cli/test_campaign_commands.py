import json
from pathlib import Path

import pytest

from tace_al.data.extxyz import read_labelled


def test_status_shows_generations_labels_and_failures(tace_al, recorded_campaign: Path) -> None:
    outcome = tace_al("status", recorded_campaign)
    assert outcome.code == 0, outcome.err
    assert "water" in outcome.out and "finished" in outcome.out
    assert "0.510 ± 0.020" in outcome.out
    assert "88 % (90 %)" in outcome.out and "convergence" in outcome.out


def test_report_goes_beside_the_campaign_or_where_told(tace_al, recorded_campaign, tmp_path):
    outcome = tace_al("report", recorded_campaign, "--out", tmp_path / "there")
    assert outcome.code == 0, outcome.err
    assert str(tmp_path / "there" / "report.md") in outcome.out
    assert (tmp_path / "there" / "profile_stretch.png").stat().st_size > 10_000


def test_lineage_of_the_last_model(tace_al, recorded_campaign: Path) -> None:
    outcome = tace_al("lineage", recorded_campaign, "11AB")
    assert outcome.code == 0, outcome.err
    for words in ("seed", "code version", "training set", "generation 0, member 1"):
        assert words in outcome.out
    content = json.loads(tace_al("lineage", recorded_campaign, "11ab", "--json").out)
    assert len(content["labels"]) == 5 and content["models"][0]["seed"] == 41


def test_lineage_of_nothing_and_of_too_much(tace_al, recorded_campaign: Path) -> None:
    for identifier, word in (("fffffffff", "begins with"), ("1", "ambiguous"), ("xyz", "no ident")):
        outcome = tace_al("lineage", recorded_campaign, identifier)
        assert outcome.code == 2 and word in outcome.err, outcome


def test_export_reads_back_as_labels(tace_al, recorded_campaign, tmp_path) -> None:
    out = tmp_path / "labels.xyz.xz"
    outcome = tace_al("export", recorded_campaign, out)
    assert outcome.code == 0, outcome.err
    frames = read_labelled(out)
    assert len(frames) == 6
    assert [round(atoms.info["REF_energy"], 6) for atoms in frames[:2]] == [-138.0, -137.9]
    assert all(atoms.arrays["REF_forces"].shape == (3, 3) for atoms in frames)
    assert all(len(atoms.info["structure_key"]) == 32 for atoms in frames)
    assert tace_al("export", recorded_campaign, out, "--role", "calibration").code == 0
    assert len(read_labelled(out)) == 1


def test_export_of_a_level_that_is_not_there(tace_al, recorded_campaign, tmp_path) -> None:
    outcome = tace_al("export", recorded_campaign, tmp_path / "o.xyz", "--fidelity", "pbe")
    assert outcome.code == 2 and "gfn2" in outcome.err and not (tmp_path / "o.xyz").exists()


def test_a_folder_without_a_campaign(tace_al, tmp_path) -> None:
    for arguments in (("status",), ("report",), ("lineage", "ab"), ("export", "o.xyz")):
        outcome = tace_al(arguments[0], tmp_path, *arguments[1:])
        assert outcome.code == 2
        assert outcome.err.startswith("error: ") and "holds no campaign" in outcome.err
    assert not any(tmp_path.iterdir()), "looking must not create anything"


@pytest.mark.slow
def test_an_unreachable_database(tace_al, recorded_campaign) -> None:
    uri = "mongodb://ann:secret@127.0.0.1:9/db"
    outcome = tace_al("status", recorded_campaign, "--db", uri)
    assert outcome.code == 2
    assert "secret" not in outcome.err + outcome.out and "127.0.0.1:9" in outcome.err
