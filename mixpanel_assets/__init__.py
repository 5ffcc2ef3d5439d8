"""A complete and exact copy of a Mixpanel project in DuckDB, as Dagster assets."""

__version__ = "0.1.0"
