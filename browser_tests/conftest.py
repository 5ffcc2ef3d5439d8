"""`mp demo --ui` as a user starts it, and a Chromium that opens its pages."""

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
PATIENCE_SECONDS = 150  # Dagster checks for new backfills every 30 seconds; a run starts in 10
SIZE = {"width": 1400, "height": 900}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for pictures of the pages")


@dataclass(frozen=True)
class Demo:
    """Addresses and database of the running demo."""

    url: str
    emulator: str
    database: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo; after SIGTERM, none of its processes may be left."""
    database = tmp_path_factory.mktemp("demo") / "shop.duckdb"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [MP, "demo", "--ui", "--port", str(port), "--database", str(database)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines: list[str] = []
        ready = threading.Event()
        reader = threading.Thread(target=read_lines, args=(process, lines, ready))
        reader.start()
        try:
            assert ready.wait(READY_SECONDS), "".join(lines)
            emulator = re.search(r"Mixpanel runs on (\S+)", "".join(lines))
            assert emulator, "".join(lines)
            yield Demo(f"http://127.0.0.1:{port}", emulator[1], database)
        finally:
            processes = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(processes, timeout=60)
            for one in left:
                one.kill()
            process.wait(60)
            reader.join()
    assert not left, "a process outlived the demo"


def read_lines(process: subprocess.Popen[str], lines: list[str], ready: threading.Event) -> None:
    assert process.stderr
    for line in process.stderr:
        lines.append(line)
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
    """A page of the demo's UI. An error in a script of the page fails the test."""
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
    """Save a picture of the page if `--screenshots` names a folder."""
    folder: Path | None = request.config.getoption("--screenshots")

    def save(name: str) -> None:
        if folder:
            page.wait_for_timeout(1_500)  # the last animation
            page.screenshot(path=folder / f"{name}.png")

    return save
