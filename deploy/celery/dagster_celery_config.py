"""What a Celery worker of Dagster reads, if this folder is in its PYTHONPATH."""

import os

broker_url = os.environ["CELERY_BROKER_URL"]
result_backend = os.environ["CELERY_RESULT_BACKEND"]
broker_connection_retry_on_startup = True
broker_transport_options = {"visibility_timeout": 43_200}  # as in dagster.yaml
task_track_started = True
worker_prefetch_multiplier = 1
# A busy worker takes no run from the queue: if it died, that run would wait with it until the
# visibility timeout. Celery 5.6 or newer, with Redis.
worker_disable_prefetch = True
