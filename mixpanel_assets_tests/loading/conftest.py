"""Loads into files that no copy is kept of: that has its tests beside the copy."""

import pytest

from mixpanel_assets.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The usual settings, without a copy for readers after each load."""
    return settings.model_copy(update={"snapshot": "off"})
