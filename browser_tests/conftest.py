"""`mp demo --ui` as a visitor starts it, and a Chromium that looks at it."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

MP = str(Path(sys.executable).with_name("mp"))
READY_SECONDS = 240
PATIENCE_SECONDS = 150  # Dagster looks for new backfills every 30 seconds; a run starts in 10
SIZE = {"width": 1400, "height": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="where to keep pictures of the pages")


@dataclass(frozen=True)
class Demo:
    """Where the running demo answers and keeps its tables."""

    url: str
    emulator: str
    database: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, which leaves no process behind when it is told to end."""
    database = tmp_path_factory.mktemp("demo") / "shop.duckdb"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [MP, "demo", "--ui", "--port", str(port), "--database", str(database)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        ready = threading.Event()
        reader = threading.Thread(target=listen, args=(process, said, ready))
        reader.start()
        try:
            assert ready.wait(READY_SECONDS), "".join(said)
            emulator = re.search(r"Mixpanel answers on (\S+)", "".join(said))
            assert emulator, "".join(said)
            yield Demo(f"http://127.0.0.1:{port}", emulator[1], database)
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(family, timeout=60)
            for one in left:
                one.kill()
            process.wait(60)
            reader.join()
    assert not left, "a process outlived the demo"


def listen(process: subprocess.Popen[str], said: list[str], ready: threading.Event) -> None:
    assert process.stderr
    for line in process.stderr:
        said.append(line)
        if "Dagster's UI is on" in line:
            ready.set()
    ready.set()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is missing. Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    """A page of the demo's UI that fails the test on an error in the page's own script."""
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    errors: list[str] = []
    with browser.new_context(base_url=demo.url, viewport=SIZE, bypass_csp=True) as context:
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert errors == []


@pytest.fixture
def picture(page: Page, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a picture of the page as it is, if `--screenshots` says where."""
    folder: Path | None = request.config.getoption("--screenshots")

    def keep(name: str) -> None:
        if folder:
            page.wait_for_timeout(1_500)  # the last animation
            page.screenshot(path=folder / f"{name}.png")

    return keep
