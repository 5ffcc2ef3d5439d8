"""The data dictionary: what the project says about its events and profile properties."""

from __future__ import annotations

from dataclasses import dataclass

from mixpanel_assets.results.base import Result


@dataclass(frozen=True, repr=False)
class LexiconMetadata(Result):
    """What Mixpanel keeps beside a definition.

    Attributes:
        source: Who wrote it, such as `api`.
        display_name: The name shown in reports.
        tags: Its tags.
        hidden: Whether reports leave it out; the export does not.
        dropped: Whether it is discarded on arrival.
        contacts: Owners, by address.
        team_contacts: Teams that own it.
    """

    source: str | None
    display_name: str | None
    tags: list[str]
    hidden: bool
    dropped: bool
    contacts: list[str]
    team_contacts: list[str]


@dataclass(frozen=True, repr=False)
class LexiconProperty(Result):
    """A property in a definition.

    Attributes:
        type: array, boolean, integer, null, number, object or string.
        description: None when there is none.
        metadata: None when there is none.
    """

    type: str
    description: str | None
    metadata: LexiconMetadata | None


@dataclass(frozen=True, repr=False)
class LexiconDefinition(Result):
    """What is said about one event, or about profiles.

    Attributes:
        description: None when there is none.
        properties: By name.
        metadata: None when there is none.
    """

    description: str | None
    properties: dict[str, LexiconProperty]
    metadata: LexiconMetadata | None


@dataclass(frozen=True, repr=False)
class LexiconSchema(Result):
    """One entry of the data dictionary.

    Attributes:
        entity_type: `event` or `profile`.
        name: Of the event, or `$user`.
        schema_json: The definition.
    """

    entity_type: str
    name: str
    schema_json: LexiconDefinition
