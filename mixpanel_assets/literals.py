"""Words that callers choose from: units of time, ways of counting, kinds of things."""

from __future__ import annotations

from typing import Literal

TimeUnit = Literal["day", "week", "month"]
HourDayUnit = Literal["hour", "day"]
CountType = Literal["general", "unique", "average"]
EntityType = Literal["event", "profile"]
TableType = Literal["events", "profiles"]
RefetchChoice = Literal["all", "missing", "stale"]
BookmarkType = Literal["insights", "funnels", "retention", "flows"]
SavedReportType = Literal["insights", "retention", "funnel", "flows"]
