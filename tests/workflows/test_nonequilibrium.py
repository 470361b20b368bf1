import pytest

from tace_al.campaign.config import Campaign
from tace_al.core.errors import ConfigError
from tace_al.data.frames import fixed_mask
from tace_al.workflows.nonequilibrium import campaign, clean_surface


def test_the_campaign_is_complete_data() -> None:
    built = campaign(metal="Au", face="100", projectile="Cu", energy_ev=2.0)
    assert built.elements == ("Au", "Cu") and built.channels == ("Cu_on_Au",)
    assert built.target_name == "sticking"
    assert built.samplers[0].options["energy_ev"] == 2.0
    (channel,) = built.structures
    assert all(len(seed.symbols) == len(channel.starts[0].symbols) + 1 for seed in channel.seeds)
    assert Campaign.build(**built.model_dump(mode="json")) == built


def test_the_lowest_layer_is_held() -> None:
    surface = clean_surface("Pt", "111")
    held = fixed_mask(surface)
    assert held.sum() == 9
    assert surface.positions[held, 2].max() < surface.positions[~held, 2].min()


@pytest.mark.parametrize(
    ("metal", "face", "words"),
    [("Ptt", "111", "Did you mean 'Pt'"), ("Pt", "110", "no face '110'")],
)
def test_wrong_surfaces(metal: str, face: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        campaign(metal=metal, face=face)
