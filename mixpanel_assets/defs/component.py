"""MixpanelComponent: a Mixpanel project as a folder of a `dg` project.

Loading a component reads no file and sends no request: what it does not say is found when a run
needs it.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a dataclass as they are.
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import dagster as dg
from dagster.components.resolved.core_models import OpSpec
from dagster.components.resolved.form_config import FormWidget
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BaseModel, Field, PrivateAttr

from mixpanel_assets.defs.assets.events import FilteredEvents
from mixpanel_assets.defs.assets.profiles import FilteredProfiles
from mixpanel_assets.defs.assets.queries import LiveQuery
from mixpanel_assets.defs.demo import demo_resource
from mixpanel_assets.defs.fields import as_written, described, text
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.metadata import METADATA, MetadataKind
from mixpanel_assets.defs.names import AssetKind, Names, StepResult
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.day_checks import CheckThresholds
from mixpanel_assets.rules.location import Location, parse_location
from mixpanel_assets.settings import Settings

Region: TypeAlias = Literal["us", "eu", "in"]

_ENV = re.compile(r"\{\{\s*env(?:\.(\w+)|\(\s*['\"](\w+)['\"]\s*\))\s*\}\}")
_NOT_IN_A_NAME = re.compile(r"\W+")


def _variable(context: dg.ResolutionContext, value: Any) -> str:
    """Return `{{ env.NAME }}` as the variable, other text as it is written."""
    # Dagster shows the configuration of resources: the name of a variable, the text of a value.
    written = str(value).strip()
    if match := _ENV.fullmatch(written):
        return dg.EnvVar(match[1] or match[2])
    return str(context.resolve_value(written)) if "{{" in written else written


def _credential(description: str, example: str, **form: Any) -> dg.Resolver:
    return dg.Resolver(
        _variable,
        model_field_type=str | int,
        inject_before_resolve=False,
        description=description,
        examples=[example],
        form_config=dg.ComponentFormConfig(**form),
    )


@dataclass(frozen=True)
class MixpanelCredentials(dg.Resolvable):
    """The credentials of a service account."""

    # Not a pydantic model, which would turn a `dagster.EnvVar` into its name.

    project_id: Annotated[str, _credential("The project's number.", "{{ env.MP_SHOP_PROJECT_ID }}")]
    username: Annotated[
        str,
        _credential("The service account's name.", "{{ env.MP_SHOP_USERNAME }}"),
    ]
    secret: Annotated[
        str,
        _credential(
            "The service account's secret. Give it as a variable: Dagster shows plain text.",
            "{{ env.MP_SHOP_SECRET }}",
            widget=FormWidget.SECRET,
        ),
    ]


class MixpanelScaffoldParams(BaseModel):
    """What `dg scaffold defs mixpanel_assets.MixpanelComponent` takes."""

    project_id: str | None = Field(
        default=None, description="The project's number; empty: a variable is named for it."
    )
    region: Region = Field(default="us", description="Where the project lives: us, eu or in.")
    start_date: date | None = Field(
        default=None, description="First partition; empty: thirty days ago."
    )
    demo: bool = Field(
        default=False, description="Invented data of a Mixpanel that is emulated, no account."
    )


class MixpanelScaffolder(dg.Scaffolder[MixpanelScaffoldParams]):
    """Writes a component that loads as it is, and names the variables that its runs need."""

    @classmethod
    def get_scaffold_params(cls) -> type[MixpanelScaffoldParams]:
        """Return the parameters; part of `dagster.Scaffolder`."""
        return MixpanelScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[MixpanelScaffoldParams]) -> None:
        """Write `defs.yaml` or `component.py`; part of `dagster.Scaffolder`."""
        params = request.params
        start = params.start_date or date.today() - timedelta(days=30)
        prefix = f"MP_{_name_of(request.target_path).upper()}"
        variables = {
            name: f"{prefix}_{name.upper()}" for name in ("project_id", "username", "secret")
        }
        given = {"project_id": params.project_id} if params.project_id else {}
        needed = [] if params.demo else [v for n, v in variables.items() if n not in given]
        shared: dict[str, Any] = {"region": params.region, "start_date": start.isoformat()}
        if request.scaffold_format == "python":
            _write_python(request, shared, None if params.demo else variables, given)
            return
        credentials = {name: f"{{{{ env.{v} }}}}" for name, v in variables.items()} | given
        own = {"demo": True} if params.demo else {"credentials": credentials}
        dg.scaffold_component(request, {**own, **shared})
        if needed:
            place = request.target_path
            with (place if request.append else place / "defs.yaml").open("a") as file:
                file.write("\nrequirements:\n  env:\n")
                file.writelines(f"    - {name}\n" for name in needed)


def _write_python(
    request: dg.ScaffoldRequest[MixpanelScaffoldParams],
    shared: dict[str, Any],
    variables: dict[str, str] | None,
    given: dict[str, str],
) -> None:
    values = {name: f'dg.EnvVar("{v}")' for name, v in (variables or {}).items()}
    values |= {name: json.dumps(value) for name, value in given.items()}
    own = "        demo=True,\n"
    if variables:
        fields = "".join(f"            {name}={values[name]},\n" for name in variables)
        own = f"        credentials=MixpanelCredentials(\n{fields}        ),\n"
    imported = "MixpanelComponent, MixpanelCredentials" if variables else "MixpanelComponent"
    rest = "".join(f'        {name}="{value}",\n' for name, value in shared.items())
    (request.target_path / "component.py").write_text(
        f"import dagster as dg\nfrom mixpanel_assets import {imported}\n\n\n"
        "@dg.component_instance\n"
        "def load(context: dg.ComponentLoadContext) -> MixpanelComponent:\n"
        f"    return MixpanelComponent(\n{own}{rest}    )\n",
        encoding="utf-8",
    )


def _name_of(path: Path) -> str:
    """Return the name of a component's folder, as a prefix of Dagster's names."""
    folder = path.parent.name if path.suffix in (".py", ".yaml", ".yml") else path.name
    return _NOT_IN_A_NAME.sub("_", folder).strip("_") or "mixpanel"


def _checked(folder_name: str) -> str:
    """Return the name of a folder, which the names in Dagster begin with.

    Raises:
        ConfigError: It does not begin with a letter, or has others than those of ASCII.
    """
    try:
        Names.of(folder_name)
    except ConfigError as error:
        raise ConfigError(
            f"The component's names in Dagster begin with that of its folder, but {error.message} "
            "Rename the folder, or set the field `name`, such as `name: shop`."
        ) from None
    return folder_name


class _Unread(MixpanelResource):
    """The resource of a component: while it loads, what only a file says is not known."""

    _is_in_run: bool = PrivateAttr(default=False)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Allow files to be read; part of `dagster.ConfigurableResource`."""
        self._is_in_run = True

    @property
    def known_project(self) -> tuple[str, str]:
        """The project's number, maybe as a variable, and region; both are empty if not given."""
        if self._is_in_run:
            return super().known_project
        return (self.project_id, self.region) if self.project_id else ("", "")


@dg.scaffold_with(MixpanelScaffolder)
class MixpanelComponent(dg.Component, dg.Model, dg.Resolvable):
    """Keep a complete copy of a Mixpanel project in DuckDB: events and profiles by day.

    The component's folder names the project in Dagster: `shop` has the assets `shop/events` and
    `shop/profiles`, the jobs `shop_backfill_history` and so on, and the resources `shop_mixpanel`
    and `shop_warehouse`. Assets of yours store and read tables of the same file with
    `io_manager_key="shop_warehouse"`.
    """

    account: Annotated[
        str | None,
        text(
            "A saved account (`mp auth list`), instead of credentials. Without both, a run uses "
            "the MP_* variables or the default account.",
            "shop",
        ),
    ] = None
    credentials: Annotated[
        MixpanelCredentials | None,
        described(
            "The project and its service account.",
            {
                "project_id": "{{ env.MP_SHOP_PROJECT_ID }}",
                "username": "{{ env.MP_SHOP_USERNAME }}",
                "secret": "{{ env.MP_SHOP_SECRET }}",
            },
        ),
    ] = None
    demo: Annotated[
        bool,
        described(
            "Load invented data. The first run starts a Mixpanel that is emulated on this machine; "
            "it ends when it is idle.",
            True,
        ),
    ] = False
    region: Annotated[
        Region | None,
        described("Where the project lives; by default us, or the region of the account.", "eu"),
    ] = None
    name: Annotated[
        str | None,
        text("The name in Dagster, instead of that of the folder.", "shop"),
    ] = None
    start_date: Annotated[
        str,
        text("First partition.", "2025-01-01", widget=FormWidget.DATE),
    ] = "2024-01-01"
    time_regime: Annotated[
        Literal["utc", "legacy"],
        described("`legacy` for projects from before 2023, whose `time` is local.", "legacy"),
    ] = "utc"
    time_zone: Annotated[str, text("The project's zone, an IANA name.", "Europe/Berlin")] = "UTC"
    database: Annotated[
        str | None,
        text(
            "The DuckDB file, below the root of the Dagster project unless it is absolute; by "
            "default data/<name>_warehouse.duckdb.",
            "data/shop.duckdb",
        ),
    ] = None
    events: Annotated[bool, described("Whether there is an asset of all events.", False)] = True
    event_tables: Annotated[
        Sequence[FilteredEvents],
        described(
            "Tables of the events of a filter.",
            [{"name": "orders", "events": ["Order Completed"]}],
        ),
    ] = ()
    profiles: Annotated[
        bool, described("Whether there is an asset of all user profiles.", False)
    ] = True
    profile_tables: Annotated[
        Sequence[FilteredProfiles],
        described(
            "Tables of the profiles of a filter.",
            [{"name": "payers", "where": 'properties["plan"] == "pro"'}],
        ),
    ] = ()
    coverage: Annotated[
        bool,
        described("Whether there is an asset that draws which days are stored.", False),
    ] = True
    groups: Annotated[
        dict[str, str],
        text(
            "Group profiles: the name of the table and the id of the group key.",
            {"companies": "-1405123841946871899"},
            kind=dict[str, str | int],
        ),
    ] = Field(default_factory=dict)
    live_queries: Annotated[
        Sequence[LiveQuery],
        described(
            "Reports of Mixpanel whose daily results are kept in tables, and their schedule.",
            [{"name": "sign_ups", "report": "event_counts", "parameters": {"events": ["Sign Up"]}}],
        ),
    ] = ()
    jobs: Annotated[
        bool | list[str],
        described(
            "Whether there are jobs, or the names of those that are wanted, without prefix.",
            ["close_yesterday", "snapshot_profiles", "backfill_history"],
        ),
    ] = True
    schedules: Annotated[
        bool | list[str],
        described(
            "Whether there are schedules, or the names of those that are wanted. They are off "
            "until someone turns them on.",
            ["close_yesterday"],
        ),
    ] = True
    automation: Annotated[
        bool,
        described("Whether conditions keep the assets current, instead of schedules.", True),
    ] = False
    checks: Annotated[
        bool | list[str],
        described(
            "Whether events have checks, or the names of those that are wanted.",
            ["events_complete"],
        ),
    ] = True
    check_thresholds: Annotated[
        dict[str, Any],
        as_written(
            "When the checks of a day warn: fields of CheckThresholds.",
            {"volume_low": 0.8, "quarantined_rows": 10},
            advanced=True,
        ),
    ] = Field(default_factory=dict)
    op: Annotated[
        OpSpec | None,
        described(
            "Tags and pool of the steps, and how a backfill of events is split into runs.",
            {"pool": "mixpanel", "tags": {"team": "data"}},
            advanced=True,
        ),
    ] = None
    translation: Annotated[
        TranslationFn[AssetKind] | None,
        TranslationFnResolver[AssetKind](
            lambda kind: {"kind": kind, "table": kind.table, "rows": kind.rows}
        ),
    ] = None
    include_metadata: Annotated[
        list[MetadataKind],
        described(
            "Kinds of metadata that Dagster shows of each day; what says whether it is complete is "
            "always shown. By default all.",
            ["row_count", "column_metadata", "cost", "content"],
        ),
    ] = Field(default_factory=lambda: list(METADATA))
    settings: Annotated[
        dict[str, Any],
        as_written(
            "Other settings, named as the MP_* variables without MP_, in small letters.",
            {"memory_limit": "2GB", "close_hour": 7},
            advanced=True,
        ),
    ] = Field(default_factory=dict)

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what `dg list components` and the UI show; part of `dagster.Component`."""
        return dg.ComponentTypeSpec(
            description="A complete copy of a Mixpanel project in DuckDB.",
            tags=["ingestion", "mixpanel", "duckdb"],
            produces=["asset", "asset_check", "job", "schedule", "sensor", "resource"],
        )

    @classmethod
    def get_form_config(cls) -> dg.ComponentFormConfig:
        """Return that the UI may edit it; part of `dagster.Resolvable`."""
        return dg.ComponentFormConfig(label="Mixpanel project", editable=True)

    def get_asset_spec(self, kind: AssetKind) -> dg.AssetSpec:
        """Return what Dagster shows of an asset; to be overridden.

        Args:
            kind: The table, what its rows are, and the spec by default.
        """
        return self.translation(kind.spec, kind) if self.translation else kind.spec

    def execute(
        self, context: dg.AssetExecutionContext, results: Iterator[StepResult]
    ) -> Iterator[StepResult]:
        """Yield the results of the step that stores the rows of an asset; to be overridden.

        Args:
            context: The step's.
            results: Load and store the rows when they are drawn: the asset's output and the
                results of its checks, which must all be yielded.
        """
        yield from results

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the project; part of `dagster.Component`.

        Args:
            context: Names the folder and the Dagster project.

        Raises:
            ConfigError: A field cannot be understood, or fields contradict each other.
        """
        name = self.name or _checked(_name_of(context.path))
        return build_definitions(
            name=name,
            account=self._resource(),
            settings=self._settings(name, context.project_root),
            events=self.events,
            profiles=self.profiles,
            coverage=self.coverage,
            tables=[*self.event_tables, *self.profile_tables],
            queries=self.live_queries,
            checks=self.checks,
            check_thresholds=CheckThresholds.given(**self.check_thresholds),
            jobs=self.jobs,
            schedules=self.schedules,
            op_tags=self.op.tags if self.op else None,
            translator=self.get_asset_spec,
            execute=self.execute,
            include_metadata=self.include_metadata,
        )

    def _resource(self) -> MixpanelResource:
        given = sum(map(bool, (self.account, self.credentials, self.demo)))
        if given > 1:
            raise ConfigError("Give one of account, credentials and demo to a MixpanelComponent.")
        if self.demo:
            return demo_resource(self.region or "us")
        if self.credentials is None:
            return _Unread(account=self.account or "", region=self.region or "")
        return _Unread(**vars(self.credentials), region=self.region or "us")

    def _settings(self, name: str, root: Path) -> Settings:
        fields = {
            "start_date": self.start_date,
            "time_regime": self.time_regime,
            "time_zone": self.time_zone,
            "groups": self.groups,
            "automation": self.automation,
            "database": self._location(name, root),
            **_split(self.op),
        }
        if twice := sorted(fields.keys() & self.settings.keys()):
            raise ConfigError(
                f"{', '.join(twice)}: a field of the component, so leave it out of `settings`."
            )
        return Settings.given(**fields, **self.settings)

    def _location(self, name: str, root: Path) -> Location:
        given = parse_location(self.database or self._usual_database(name))
        return root / given.expanduser() if isinstance(given, Path) else given

    def _usual_database(self, name: str) -> str:
        return f"data/{name}_{'demo' if self.demo else 'warehouse'}.duckdb"


def _split(op: OpSpec | None) -> dict[str, Any]:
    """Return the settings that an op's spec means."""
    if op is None:
        return {}
    if op.name or op.description:
        raise ConfigError(
            "`op` of a MixpanelComponent holds for several assets, so it has no name and no "
            "description. Use `translation` for descriptions."
        )
    runs = op.backfill_policy.max_partitions_per_run if op.backfill_policy else None
    return {"pool": op.pool, "partitions_per_run": runs}
