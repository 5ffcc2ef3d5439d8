"""How a Mixpanel project is called in Dagster: keys, prefixes, and a translator of its assets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias, cast

import dagster as dg
from dagster_shared.utils.warnings import BetaWarning

from mixpanel_assets.defs.metadata import METADATA, MetadataKind
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.queries import QUERIES_SCHEMA
from mixpanel_assets.warehouse import SCHEMA

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Names:
    """The names of a Mixpanel project in Dagster; those of its tables in DuckDB do not change.

    Attributes:
        prefix: Before the names of jobs, schedules, sensors and ops; empty: none.
        key_prefix: The first parts of the assets' keys.
        group: The assets' group.
        mixpanel: The key of the `MixpanelResource`.
        warehouse: The key of the `WarehouseIOManager`.

    Example:
        >>> names = Names.of("shop")
        >>> names.named("close_yesterday")
        'shop_close_yesterday'
    """

    prefix: str = ""
    key_prefix: tuple[str, ...] = (SCHEMA,)
    group: str = "mixpanel"
    mixpanel: str = "mixpanel"
    warehouse: str = "mixpanel_warehouse"

    @classmethod
    def of(
        cls,
        name: str | None,
        *,
        key_prefix: str | Sequence[str] | None = None,
        group: str | None = None,
        mixpanel: str | None = None,
        warehouse: str | None = None,
    ) -> Self:
        """Return the names of a project.

        Args:
            name: Prefixes each name, so that several projects are in one code location; None: the
                only project.
            key_prefix: Instead of the name, or of `mixpanel` without one.
            group: Instead of the name, or of `mixpanel` without one.
            mixpanel: Instead of `<name>_mixpanel`, or of `mixpanel`.
            warehouse: Instead of `<name>_warehouse`, or of `mixpanel_warehouse`.

        Raises:
            ConfigError: The name is not made of letters, digits and underscores.
        """
        if name is not None and not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot be a prefix of Dagster's names: use letters, digits and "
                "underscores, and begin with a letter."
            )
        usual = name or "mixpanel"
        keys = (key_prefix,) if isinstance(key_prefix, str) else tuple(key_prefix or (usual,))
        return cls(
            prefix=name or "",
            key_prefix=keys,
            group=group or usual,
            mixpanel=mixpanel or (f"{name}_mixpanel" if name else "mixpanel"),
            warehouse=warehouse or f"{usual}_warehouse",
        )

    def named(self, name: str) -> str:
        """Return a name with the prefix.

        Args:
            name: Of a job, schedule, sensor or op.
        """
        return f"{self.prefix}_{name}" if self.prefix else name

    def asset_key(self, table: str) -> dg.AssetKey:
        """Return the key of the asset with a table.

        Args:
            table: The table in schema `mixpanel`.
        """
        return dg.AssetKey([*self.key_prefix, table])

    def query_key(self, table: str) -> dg.AssetKey:
        """Return the key of the asset with daily results of a report.

        Args:
            table: Its table in schema `mixpanel_queries`.
        """
        return dg.AssetKey([self.queries, table])

    @property
    def queries(self) -> str:
        """The group of assets of daily results of reports."""
        return self.named("queries") if self.prefix else QUERIES_SCHEMA

    @property
    def resource_keys(self) -> set[str]:
        """What an op that sends requests needs."""
        return {self.mixpanel}

    def resource(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    ) -> MixpanelResource:
        """Return the resource of a step.

        Args:
            context: The step's.
        """
        return cast("MixpanelResource", getattr(context.resources, self.mixpanel))


THE_ONLY_PROJECT: Names = Names()


def opening(op: dg.OpDefinition, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run configuration with which the launchpad of a job of one op opens.

    Without it, Dagster shows the defaults of the op and of all its resources.
    """
    return {"ops": {op.name: {"config": dict(config)}}}


@dataclass(frozen=True)
class AssetKind:
    """What a translator knows of an asset.

    Attributes:
        table: Its table in schema `mixpanel`, such as `events`.
        rows: What one row is: an `event`, a `profile`, the `report` of a day, or a `day`.
        spec: What Dagster shows if the translator changes nothing.
    """

    table: str
    rows: Literal["event", "profile", "report", "day"]
    spec: dg.AssetSpec


class MixpanelTranslator:
    """Decides how assets appear in Dagster: key, group, tags, owners, automation and the rest.

    Example:
        >>> class Raw(MixpanelTranslator):
        ...     def get_asset_spec(self, kind):
        ...         return super().get_asset_spec(kind).replace_attributes(group_name="raw")
        >>> defs = build_definitions(translator=Raw())
    """

    def get_asset_spec(self, kind: AssetKind) -> dg.AssetSpec:
        """Return what Dagster shows of an asset; to be overridden.

        Args:
            kind: The asset, with what is shown by default.
        """
        return kind.spec


StepResult: TypeAlias = dg.Output[Any] | dg.AssetCheckResult
Translate = Callable[[AssetKind], dg.AssetSpec]
Execute = Callable[[dg.AssetExecutionContext, Iterator[StepResult]], Iterator[StepResult]]


def _untranslated(kind: AssetKind) -> dg.AssetSpec:
    return kind.spec


def _as_it_is(
    context: dg.AssetExecutionContext, results: Iterator[StepResult]
) -> Iterator[StepResult]:
    return results


@dataclass(frozen=True)
class AssetHooks:
    """What a host decides of an asset.

    Attributes:
        translate: Makes what Dagster shows of it; see `MixpanelTranslator`.
        execute: Runs the step that stores its rows, which loads when its results are drawn.
        op_tags: The tags of its steps.
        include_metadata: Kinds of metadata that are shown, of `METADATA`. What says whether a day
            is complete always is.
    """

    translate: Translate = _untranslated
    execute: Execute = _as_it_is
    op_tags: Mapping[str, str] = field(default_factory=dict)
    include_metadata: Collection[MetadataKind] = tuple(METADATA)

    def spec(self, kind: AssetKind) -> dg.AssetSpec:
        """Return what the translator makes of an asset.

        Args:
            kind: The asset.

        Raises:
            ConfigError: It is not a `dagster.AssetSpec`.
        """
        spec = self.translate(kind)
        if not isinstance(spec, dg.AssetSpec):
            raise ConfigError(
                f"get_asset_spec returned {spec!r} for the table {kind.table}; it must return a "
                "dagster.AssetSpec, such as kind.spec."
            )
        return spec

    def shown(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata without the kinds that are left out.

        Args:
            metadata: Values by name.
        """
        hidden = {
            name
            for kind, names in METADATA.items()
            if kind not in self.include_metadata
            for name in names
        }
        return {name: value for name, value in metadata.items() if name not in hidden}

    def present(self, asset: dg.AssetsDefinition, spec: dg.AssetSpec) -> dg.AssetsDefinition:
        """Return an asset with a translated spec; its days and the place of its rows are kept.

        Args:
            asset: The asset.
            spec: What `spec` returned for it.
        """
        return asset.map_asset_specs(
            lambda own: spec.replace_attributes(
                partitions_def=own.partitions_def,
                metadata={**spec.metadata, **own.metadata},
            )
        )


NO_HOOKS: AssetHooks = AssetHooks()


@contextmanager
def quiet_beta() -> Iterator[None]:
    """Suppress Dagster's warning that backfill policies may still change."""
    # No user of ours can act on it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)
        yield
