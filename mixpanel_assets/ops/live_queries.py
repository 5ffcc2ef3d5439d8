"""Ops that ask Mixpanel's reports: one for each question of `questions`."""

from datetime import date
from typing import get_type_hints

import dagster as dg

from mixpanel_assets.failures import StepRetries, explained_to_dagster
from mixpanel_assets.live_query import LiveQueryService
from mixpanel_assets.ops import questions
from mixpanel_assets.ops.questions import QUESTIONS, Question
from mixpanel_assets.ops.summaries import summary_metadata
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.results import ResultWithDataFrame
from mixpanel_assets.settings import Settings, load_settings


def live_query_op(question: type[Question], settings: Settings | None = None) -> dg.OpDefinition:
    """Return the op that asks a question and returns its result, named as the report.

    Args:
        question: The configuration of the op.
        settings: Instead of the MP_* variables.

    Example:
        >>> segmentation = live_query_op(SegmentationConfig)
    """
    answer = get_type_hints(getattr(LiveQueryService, question.report))["return"]

    @dg.op(
        name=question.report,
        description=f"{question.title} {question.cost}",
        out=dg.Out(answer),
    )
    def ask(
        context: dg.OpExecutionContext,
        config: question,  # type: ignore[valid-type]
        mixpanel: MixpanelResource,
    ) -> ResultWithDataFrame:
        asked: Question = config
        retries = StepRetries.of(context, settings or load_settings())
        with explained_to_dagster(retries), mixpanel.client() as client:
            result = asked.ask(LiveQueryService(client), project_today(settings))
        context.add_output_metadata(summary_metadata(result))
        return result

    return ask


def project_today(settings: Settings | None = None) -> date:
    """Return the current day in the project's zone, which reports count by."""
    return (settings or load_settings()).project_today()


def live_query_jobs(settings: Settings) -> list[dg.JobDefinition]:
    """Return a job for each question, to be configured in the launchpad."""
    return [_job(question, settings) for question in QUESTIONS]


def _job(question: type[Question], settings: Settings) -> dg.JobDefinition:
    op = live_query_op(question, settings)

    @dg.job(name=f"ask_{question.report}", description=op.description)
    def job() -> None:
        op()

    return job


segmentation = live_query_op(questions.SegmentationConfig)
funnel = live_query_op(questions.FunnelConfig)
retention = live_query_op(questions.RetentionConfig)
jql = live_query_op(questions.JQLConfig)
event_counts = live_query_op(questions.EventCountsConfig)
property_counts = live_query_op(questions.PropertyCountsConfig)
frequency = live_query_op(questions.FrequencyConfig)
segmentation_numeric = live_query_op(questions.SegmentationNumericConfig)
segmentation_sum = live_query_op(questions.SegmentationSumConfig)
segmentation_average = live_query_op(questions.SegmentationAverageConfig)
query_saved_report = live_query_op(questions.SavedReportConfig)
activity_feed = live_query_op(questions.ActivityFeedConfig)
