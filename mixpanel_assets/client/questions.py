"""Checks of what callers ask, made before a request is spent on it."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, get_args

from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.types import Api
from mixpanel_assets.errors import ConfigError, ServerError
from mixpanel_assets.rules.days import as_day

T = TypeVar("T")

_ACCESSOR = re.compile(r"\b(properties|event|user|behaviors)\s*\[")


class Asker(ABC):
    """What a question needs: who asks, and a way to send it."""

    credentials: Credentials

    @abstractmethod
    def get(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON answer to a GET."""

    @abstractmethod
    def post(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON answer to a POST of form fields."""


def date_range(from_date: date | str, to_date: date | str) -> dict[str, str]:
    """Return the two parameters of a range of days, both included."""
    first, last = as_day(from_date), as_day(to_date)
    if first > last:
        raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
    return {"from_date": first.isoformat(), "to_date": last.isoformat()}


def text(name: str, value: str) -> str:
    """Return a text that must not be empty."""
    if not (isinstance(value, str) and value.strip()):
        raise ConfigError(f"{name} must be a text, not {value!r}.")
    return value


def optional_text(name: str, value: str | None) -> str | None:
    """Return a text that may be left out, but not be empty."""
    return None if value is None else text(name, value)


def property_in(name: str, value: str) -> str:
    """Return the expression of a property: a plain name such as `$city` is put into one.

    Text that reaches into `properties`, `event`, `user` or `behaviors` is an expression.
    """
    if _ACCESSOR.search(text(name, value)):
        return value
    return f"properties[{json.dumps(value, ensure_ascii=False)}]"


def optional_property_in(name: str, value: str | None) -> str | None:
    """Return the expression of a property, which may be left out."""
    return None if value is None else property_in(name, value)


def texts(name: str, values: Sequence[str]) -> list[str]:
    """Return a list of at least one text."""
    if isinstance(values, str) or not values or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name} must be a list of texts, not {values!r}.")
    return list(values)


def one_of(name: str, value: str, choices: Any) -> str:
    """Return a value that a `Literal` allows."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}.")
    return value


def number(name: str, value: int) -> int:
    """Return a whole number from 1 on."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} must be a whole number from 1 on, not {value!r}.")
    return value


def optional_number(name: str, value: int | None) -> int | None:
    """Return a whole number from 1 on, which may be left out."""
    return None if value is None else number(name, value)


def checked(answer: Any, kind: type[T], asked: str) -> T:
    """Return an answer that must be a list or an object."""
    if not isinstance(answer, kind):
        raise ServerError(
            f"{asked} answered 200 with a {type(answer).__name__} instead of a {kind.__name__}.",
            status_code=200,
        )
    return answer
