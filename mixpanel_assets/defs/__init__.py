"""Everything that imports Dagster: assets, ops, IO managers, resources, schedules, metadata.

Each module translates between Dagster and `loading`; the work itself is done there.
"""
