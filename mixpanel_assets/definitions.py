"""The code location that stands alone: the project of the MP_* variables."""

import dagster as dg

from mixpanel_assets.defs.location import build_definitions as build_definitions
from mixpanel_assets.defs.location import linked_to_code

# In a host, only our own jobs run in one process. Here every run does, which spares each step the
# 3 seconds of a process of its own.
defs = linked_to_code(build_definitions(warehouse_key="warehouse", executor=dg.in_process_executor))
