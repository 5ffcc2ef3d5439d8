"""MixpanelResource: Mixpanel credentials as Dagster configuration, a client and a workspace."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import Field, PrivateAttr

from mixpanel_assets.auth import ConfigManager, asked_project
from mixpanel_assets.client import Credentials, MixpanelAPIClient
from mixpanel_assets.defs.failures import StepRetries, explained_to_dagster
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.workspace import Workspace

logger = logging.getLogger(__name__)

_PASSWORD = re.compile(r"://[^/@]*:[^@]+@|[?&]password=")  # in the location of a server
_FIELDS = ("username", "secret", "project_id", "region")


class MixpanelResource(dg.ConfigurableResource[None]):
    """A Mixpanel project, read with a service account.

    Name an account of the config file (`mp auth add`), or give a service account with the secret
    as an `EnvVar`. Without either, a run uses what `mp` would: the MP_* variables, the account of
    MP_ACCOUNT, or the default account. Dagster's pages show the name of the account or of the
    variable. In an op, `with context.resources.mixpanel.client() as client:` sends requests.
    """

    # Not a field, which Dagster would show, nor private, which Dagster's copies of it would lose.
    settings: ClassVar[Settings | None] = None

    _is_warned: bool = PrivateAttr(default=False)

    account: str = Field(
        default="",
        description="The name of an account of the config file (`mp auth list`). Empty: the "
        "fields below, else MP_ACCOUNT or the default account.",
    )
    username: str = Field(
        default="", description="The service account's name; empty for MP_USERNAME."
    )
    secret: str = Field(
        default="",
        repr=False,
        description="The service account's secret, as an EnvVar; empty for MP_SECRET.",
    )
    project_id: str = Field(
        default="",
        description="The project's number; empty for MP_PROJECT_ID or that of the account.",
    )
    region: str = Field(
        default="",
        description="Where the project lives: us, eu or in; empty for MP_REGION, that of the "
        "account, or us.",
    )
    api_base_url: str = Field(
        default="",
        description="One host for every API; empty for MP_API_BASE_URL or Mixpanel's own.",
    )
    max_retries: int | None = Field(
        default=None,
        description="How often an incomplete response, a 5xx or a lost connection is retried; "
        "empty for MP_MAX_RETRIES.",
    )
    state_dir: str = Field(
        default="",
        repr=False,  # it can hold a password
        description="Where all processes count requests: a folder, or the location of a PostgreSQL "
        "server. Empty for MP_STATE_DIR or ~/.mp/state, `:memory:` for each process by itself.",
    )
    budget_reserve: int | None = Field(
        default=None,
        description="Requests per hour of each API that are left for colleagues; empty for "
        "MP_BUDGET_RESERVE.",
    )

    def get_resource_definition(self) -> Any:  # Dagster does not export its type
        """Return what Dagster runs and shows; part of `dagster.ConfigurableResource`."""
        definition = super().get_resource_definition()
        if not self._is_warned and (name := self._plain_secret()):
            self._is_warned = True
            logger.warning(
                "The %s of a MixpanelResource is plain text, which Dagster shows with the "
                'configuration of its resources. Give it as %s=dg.EnvVar("MP_%s").',
                name,
                name,
                name.upper(),
            )
        return definition

    def _plain_secret(self) -> str | None:
        """Return the name of a field that shows a secret."""
        if self.secret and not isinstance(self.secret, dg.EnvVar):
            return "secret"
        is_shown = not isinstance(self.state_dir, dg.EnvVar)
        return "state_dir" if is_shown and _PASSWORD.search(self.state_dir) else None

    @property
    def credentials(self) -> Credentials:
        """The checked credentials.

        Raises:
            ConfigError: Something is missing or malformed.
        """
        account, given = self._named()
        return ConfigManager().resolution(account, **given).credentials()

    @property
    def known_project(self) -> tuple[str, str]:
        """The project's number and region; both are empty while they are not known."""
        with suppress(ConfigError):  # a run raises it when it sends a request
            account, given = self._named()
            project_id, region = asked_project(account, arguments=given)
            if project_id:
                return project_id, region
        return "", ""

    def _named(self) -> tuple[str | None, dict[str, str]]:
        """Return the account and the fields of the credentials that this resource names."""
        account = _value(self.account) or None
        given = {name: _value(getattr(self, name)) for name in _FIELDS}
        if account is None:
            # In a run, Dagster has replaced EnvVar("MP_SECRET") by its value. Without it, the same
            # value is found in the variable, and messages name the variable.
            given = {name: value for name, value in given.items() if value != _variable(name)}
        return account, given

    def client(self, settings: Settings | None = None) -> MixpanelAPIClient:
        """Return a client, to be used in a `with` block; it waits for the budget without a limit.

        Args:
            settings: Hold where a field is empty; None: those of `with_settings`, or the MP_*
                variables.

        Raises:
            ConfigError: The credentials are not complete, or an MP_* variable is wrong.

        Example:
            >>> with resource.client() as client:
            ...     client.get_events(limit=2)
        """
        # A run should wait rather than fail: the budget has room again within the hour.
        return self._settings(settings).client(self.credentials, max_wait_seconds=None)

    def workspace(self) -> Workspace:
        """Return a workspace for this project, to be used in a `with` block.

        Its file is that of the assets: the resource of `build_definitions` knows it, any other
        uses that of MP_DATABASE or its default.

        Raises:
            ConfigError: The credentials are not complete, or an MP_* variable is wrong.

        Example:
            >>> with MixpanelResource().workspace() as ws:
            ...     ws.segmentation("Sign Up", "2024-01-01", "2024-01-07").df
        """
        return Workspace(
            credentials=self.credentials, settings=self._settings(), max_wait_seconds=None
        )

    def with_settings(self, settings: Settings) -> Self:
        """Return a copy whose clients and workspaces use some settings, not the MP_* variables.

        Args:
            settings: Hold where a field is empty.

        Example:
            >>> with MixpanelResource().with_settings(Settings()).client() as client:
            ...     client.get_events(limit=2)
        """
        kind = type(self)
        bound = type(
            kind.__name__,
            (kind,),
            {"__module__": kind.__module__, "__doc__": kind.__doc__, "settings": settings},
        )
        copy: Self = bound(**{name: getattr(self, name) for name in self.model_fields_set})
        return copy

    def _settings(self, given: Settings | None = None) -> Settings:
        """Return the settings with what this resource says instead."""
        own = {
            "api_base_url": _value(self.api_base_url),
            "max_retries": self.max_retries,
            "state_dir": _value(self.state_dir),
            "budget_reserve": self.budget_reserve,
        }
        return (given or self.settings or load_settings()).model_copy(
            update={name: value for name, value in own.items() if value not in ("", None)}
        )


def resource_from_environment() -> MixpanelResource:
    """Return the resource of the project that the environment names."""
    names = ("username", "secret", "project_id")
    variables: dict[str, Any] = {
        name: dg.EnvVar(f"MP_{name.upper()}") for name in names if _variable(name)
    }
    return MixpanelResource(**variables, region=_variable("region"))


def _variable(name: str) -> str:
    return os.environ.get(f"MP_{name.upper()}", "")


def _value(field: str) -> str:
    # Outside a Dagster run, Dagster has not replaced the EnvVar by its value.
    return (field.get_value() or "") if isinstance(field, dg.EnvVar) else field


@contextmanager
def client_of_step(
    mixpanel: MixpanelResource,
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    settings: Settings,
) -> Iterator[MixpanelAPIClient]:
    """Yield the client of a step whose errors Dagster explains, and retries if that can help.

    Raises:
        Failure: See `explained_to_dagster`.
        RetryRequested: See `explained_to_dagster`.
    """
    retries = StepRetries.of(context, settings)
    with explained_to_dagster(retries), mixpanel.client(settings) as client:
        tag_project(context, client)
        try:
            yield client
        finally:
            tag_requests(context, client.budget.requests)


PROJECT_TAG = "mixpanel/project"
REQUESTS_TAG = "mixpanel/requests"
StepContext = dg.OpExecutionContext | dg.AssetExecutionContext


def tag_project(context: StepContext, client: MixpanelAPIClient) -> None:
    """Tag the run of a step with the project that it sends requests to."""
    _tag(context, {PROJECT_TAG: client.credentials.project_id})


def tag_requests(context: StepContext, requests: int) -> None:
    """Add requests of a step to those that the run is tagged with."""
    if requests and (run := context.instance.get_run_by_id(context.run.run_id)):
        # Read again: the tags of the context are those of the run's beginning.
        _tag(context, {REQUESTS_TAG: str(int(run.tags.get(REQUESTS_TAG, 0)) + requests)})


def _tag(context: StepContext, tags: dict[str, str]) -> None:
    # A run can be deleted while it runs.
    if context.instance.has_run(context.run.run_id):
        context.instance.add_run_tags(context.run.run_id, tags)
