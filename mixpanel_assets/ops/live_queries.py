"""Ops that ask Mixpanel's reports: one for each question of `questions`."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from typing import get_type_hints

import dagster as dg

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.client.live import LiveQueryService
from mixpanel_assets.failures import StepRetries, explained_to_dagster
from mixpanel_assets.loading.queries import check_zone, must_be_over
from mixpanel_assets.ops import questions
from mixpanel_assets.ops.questions import QUESTIONS, DatedQuestion, Question
from mixpanel_assets.ops.summaries import summary_metadata
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.results import ResultWithDataFrame
from mixpanel_assets.rules.days import as_day
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.workspace import Workspace

logger = logging.getLogger(__name__)


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
        known = settings or load_settings()
        retries = StepRetries.of(context, known)
        with explained_to_dagster(retries), mixpanel.client() as client:
            today = project_today(known, client=client, warn=context.log.warning)
            if isinstance(asked, DatedQuestion) and asked.to_date:
                must_be_over(as_day(asked.to_date), known.time_zone)
            result = asked.ask(LiveQueryService(client), today)
        context.add_output_metadata(summary_metadata(result))
        return result

    return ask


def project_today(
    settings: Settings | None = None,
    *,
    client: MixpanelAPIClient | None = None,
    warn: Callable[[str], object] = logger.warning,
) -> date:
    """Return the current day in the project's zone, which reports count by.

    MP_TIME_ZONE is compared with what Mixpanel says at `/api/app/me`, which costs no query.

    Args:
        settings: Instead of the MP_* variables.
        client: Asks Mixpanel; None: as the credentials that the environment or the config file
            has.
        warn: Called with a warning when Mixpanel does not tell the zone.

    Raises:
        ConfigError: MP_TIME_ZONE is another zone than the project's, or there are no credentials.

    Example:
        >>> with MixpanelResource().client() as client:
        ...     today = project_today(client=client)
    """
    known = settings or load_settings()
    with ExitStack() as opened:
        if client is None:
            client = opened.enter_context(Workspace(settings=known)).api
        check_zone(client, known, warn)
    return known.project_today()


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
