"""Every contract is checked on every network of `potentials.POTENTIALS` it applies to."""

import pytest
from potentials import POTENTIALS, Potential, potential


@pytest.fixture(params=POTENTIALS)
def model(request: pytest.FixtureRequest) -> Potential:
    """Return each network in turn; tests skip those that a contract does not concern."""
    return potential(request.param)
