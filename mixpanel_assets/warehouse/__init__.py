"""The DuckDB side alone: one file, its tables, and the transactions that replace days.

Nothing here knows HTTP or Dagster. `Database` opens and locks, `prepare` makes and
guards the tables, `replace_events` and `replace_profiles` load, `tables` reads.
"""
