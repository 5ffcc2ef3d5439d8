"""What the client and the warehouse must agree on: days, zones, made ids, lines, JSON, locks.

A stream and a stored row are equal because both sides take their rules from here. Nothing here
knows HTTP, DuckDB or Dagster.
"""
