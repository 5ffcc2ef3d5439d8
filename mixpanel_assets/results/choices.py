"""The allowed words of arguments: units of time, ways of counting, types of tables."""

from __future__ import annotations

from typing import Literal

TimeUnit = Literal["day", "week", "month"]
SegmentUnit = Literal["minute", "hour", "day", "week", "month"]
HourDayUnit = Literal["hour", "day"]
CountType = Literal["general", "unique", "average"]
LengthUnit = Literal["day", "hour", "minute", "second"]
RetentionType = Literal["birth", "compounded"]
EntityType = Literal["event", "profile"]
TableType = Literal["events", "profiles"]
RefetchChoice = Literal["all", "missing", "stale"]
BookmarkType = Literal["insights", "funnels", "retention", "flows"]
SavedReportType = Literal["insights", "retention", "funnel", "flows"]
