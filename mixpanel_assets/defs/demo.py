"""The resource of a component with `demo: true`: the first run starts an emulated Mixpanel."""

from __future__ import annotations

from pathlib import Path

from pydantic import PrivateAttr

from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.settings import Settings


class DemoResource(MixpanelResource):
    """A project with invented data, in an emulator that all runs of a `DAGSTER_HOME` share."""

    _is_warned: bool = PrivateAttr(default=True)  # its secret is no secret

    def _settings(self, given: Settings | None = None) -> Settings:
        from mixpanel_assets.emulator.shared import address_of

        context = self.get_resource_context()
        instance = context.instance
        assert instance is not None, "a resource of a run has an instance"
        folder = Path(instance.root_directory) / "mixpanel_demo"
        return (
            super()
            ._settings(given)
            .model_copy(
                update={
                    "api_base_url": address_of(folder, self.region),
                    "state_dir": ":memory:",  # keeps the demo out of the real request budget
                }
            )
        )


def demo_resource(region: str) -> DemoResource:
    """Return the resource of a region's project; nothing is started yet."""
    from mixpanel_assets.emulator.shared import PROJECTS

    project = PROJECTS[region]
    return DemoResource(
        username=project.username,
        secret=project.secret,
        project_id=str(project.project_id),
        region=region,
    )
