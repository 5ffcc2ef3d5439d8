"""`mp emulator`: serve the pretend Mixpanel, say how to reach it."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from datetime import date

import typer

from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError


def serve_emulator(*, port: int, seed: int, start: date, events_per_day: int, zone: str) -> None:
    """Serve until interrupted."""
    settings = EmulatorSettings(seed=seed, start=start, events_per_day=events_per_day, zone=zone)
    with ExitStack() as running:
        try:
            emulator = running.enter_context(Emulator(settings, port=port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
            ) from error
        for name, value in environment_of(emulator).items():
            typer.echo(f"export {name}={value}")
        typer.echo(
            f"SDKs send to {emulator.base_url}/track, /import, /engage and /groups, with the "
            f"token {emulator.project_token}.",
            err=True,
        )
        typer.echo("Serving until interrupted (Ctrl-C).", err=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def environment_of(emulator: Emulator) -> dict[str, str]:
    """Return the MP_* variables that point a client at an emulator."""
    zone = emulator.settings.zone
    return {
        "MP_API_BASE_URL": emulator.base_url,
        "MP_USERNAME": emulator.username,
        "MP_SECRET": emulator.secret,
        "MP_PROJECT_ID": str(emulator.project_id),
        "MP_REGION": emulator.settings.region,
        "MP_STATE_DIR": ":memory:",  # its requests are nobody's budget
        **({} if zone == "UTC" else {"MP_TIME_ZONE": zone}),
    }
