"""Rules that the client and the warehouse share: days, zones, made ids, lines, JSON, locks.

A stream and a stored row are equal because both sides use these rules. Nothing here knows HTTP,
DuckDB or Dagster.
"""
