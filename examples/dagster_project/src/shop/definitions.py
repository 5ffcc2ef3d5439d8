"""The code location: all that is below `defs/`."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the folder."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
