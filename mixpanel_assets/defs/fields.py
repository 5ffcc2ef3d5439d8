"""Fields of models that are written in Python or in the YAML of a component."""

from __future__ import annotations

from typing import Any

import dagster as dg


def described(description: str, *examples: Any, **form: Any) -> dg.Resolver:
    """Return how Dagster reads a field, and shows it in its documentation and forms.

    Args:
        description: What the field means.
        *examples: Values of it.
        **form: Of a `dagster.ComponentFormConfig`.
    """
    resolver: dg.Resolver = dg.Resolver.default(**_shown(description, examples, form))
    return resolver


def as_written(description: str, *examples: Any, **form: Any) -> dg.Resolver:
    """Return how Dagster reads a mapping of values; text is kept as it is written."""
    return dg.Resolver(_value, inject_before_resolve=False, **_shown(description, examples, form))


def text(description: str, *examples: Any, kind: Any = str | int, **form: Any) -> dg.Resolver:
    """Return how Dagster reads a field of text, or of texts in a list or mapping.

    Args:
        description: What the field means.
        *examples: Values of it.
        kind: What YAML may hold: numbers are read as they are written.
        **form: Of a `dagster.ComponentFormConfig`.
    """
    return dg.Resolver(
        _text,
        inject_before_resolve=False,
        model_field_type=kind,
        **_shown(description, examples, form),
    )


def _shown(description: str, examples: tuple[Any, ...], form: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "examples": [*examples],
        "form_config": dg.ComponentFormConfig(**form) if form else None,
    }


def _value(context: dg.ResolutionContext, value: Any) -> Any:
    """Return a value with its templates rendered, and other text as it is written."""
    # Dagster would make the number 5 of the text "5".
    if isinstance(value, str):
        return context.resolve_value(value) if "{{" in value else value
    if isinstance(value, list | tuple):
        return [_value(context, one) for one in value]
    if isinstance(value, dict):
        return {key: _value(context, one) for key, one in value.items()}
    return context.resolve_value(value)


def _text(context: dg.ResolutionContext, value: Any) -> Any:
    """Return text, and lists and mappings of text."""
    if isinstance(value, list | tuple):
        return [_text(context, one) for one in value]
    if isinstance(value, dict):
        return {key: _text(context, one) for key, one in value.items()}
    found = _value(context, value)
    return found if found is None else str(found)
