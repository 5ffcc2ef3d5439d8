"""Methods that hand their call to a service which does the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:

    class Method(Generic[P, R_co]):
        """What a type checker sees: a method without the service in its signature."""

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], R_co]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, R_co]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...


def delegated(
    attribute: str, method: Callable[Concatenate[Any, P], R]
) -> Method[P, R]:  # a plain function when it runs
    """Return a method that calls `method` of the service in an attribute.

    It has the signature and the docstring of the service's method.

    Args:
        attribute: The attribute that holds the service.
        method: The service's method, such as `LiveQueryService.funnel`.
    """

    @wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, getattr(getattr(self, attribute), method.__name__)(*args, **kwargs))

    return cast("Method[P, R]", call)


def delegated_within(
    opener: str, method: Callable[Concatenate[Any, P], R]
) -> Method[P, R]:  # a plain function when it runs
    """Return a method that calls `method` of a service that is there for the call alone.

    Args:
        opener: The method that yields the service, as a context manager.
        method: The service's method, such as `TableInspector.tables`.
    """

    @wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with getattr(self, opener)() as service:
            return cast(R, getattr(service, method.__name__)(*args, **kwargs))

    return cast("Method[P, R]", call)
