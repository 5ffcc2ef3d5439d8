"""A signal becomes one KeyboardInterrupt, at a safe moment."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from mixpanel_assets_tests.cli.conftest import MP, heed_signals

# What a child does is code of others; what it hands to `ours` is code of a file in the package.
CHILD = """
import os, signal, sys, threading, time
from pathlib import Path
import mixpanel_assets.cli.signals as signals

def ours(text):
    exec(compile(text, str(Path(signals.__file__).with_name("command.py")), "exec"), globals())

def ready():
    print("ready", flush=True)

signals.listen()
try:
    exec(sys.argv[1])
except KeyboardInterrupt:
    print("caught")
    signals.leave(1)
print("went on")
signals.leave(0)
"""


@pytest.fixture
def child(tmp_path):
    """Start a child, and return it once it has called `ready`."""
    with ExitStack() as children:

        def start(code, before=heed_signals):
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD, code],
                env={**os.environ, "PYTHONPATH": str(tmp_path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=before,
            )
            children.enter_context(process)
            children.callback(process.kill)
            assert process.stdout.readline() == "ready\n"
            return process

        yield start


def ended(process):
    process.wait(300)
    return process.stdout.read(), process.stderr.read(), process.returncode


BUSY = "ours('ready()\\nwhile True: pass')"
ASLEEP = "ready(); threading.Event().wait()"
READING = "ready(); sys.stdin.read()"
FOREIGN = """
ready()
while True:
    len([])
"""


@pytest.mark.parametrize("code", [BUSY, ASLEEP, READING, FOREIGN])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_whatever_the_thread_does(code, number, child):
    """Our code, a wait, a read, and after a second code of others, end with the signal's code."""
    process = child(code)
    process.send_signal(number)
    assert ended(process) == ("caught\n", "", 128 + number)


LOST = """
class Lost:
    def __del__(self):
        ready()
        time.sleep(3600)

ours('Lost()')
ours('time.sleep(3600)')
"""


def test_an_interrupt_that_a_callback_swallows_comes_again(child):
    """What Python raises in `__del__`, it ignores; nothing is said of that."""
    process = child(LOST)
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("caught\n", "", 130)


SLOW_TO_IMPORT = """
import time
print("ready", flush=True)
for _ in range(50):
    time.sleep(0.02)
print("imported", flush=True)
"""


@pytest.mark.parametrize("is_loading", [True, False])
def test_a_load_interrupts_no_import(is_loading, child, tmp_path):
    """Its threads might wait for a lock of the broken import; before a load there are none."""
    (tmp_path / "slow_to_import.py").write_text(SLOW_TO_IMPORT)
    code = "ours('import slow_to_import; time.sleep(3600)')"
    process = child(f"with signals.loading(): {code}" if is_loading else code)
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("imported\n" * is_loading + "caught\n", "", 130)


CLEANING = """
try:
    ready()
    time.sleep(3600)
finally:
    print("cleaning", flush=True)
    ours("time.sleep({})")
    print("cleaned", flush=True)
"""


def test_one_key_press_that_comes_twice_counts_once(child):
    """A terminal and a parent process may both send it; cleaning up continues."""
    process = child(CLEANING.format(0.3))
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == ("cleaned\ncaught\n", "", 130)


def test_a_second_one_ends_the_cleaning_up(child):
    """A user who presses Ctrl-C again does not want to wait."""
    process = child(CLEANING.format(3600))
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(0.7)  # no longer the same key press
    process.send_signal(signal.SIGINT)
    assert ended(process) == ("caught\n", "", 143)


def test_an_ignored_signal_stays_ignored(child):
    """As with `nohup`, or in the background of a shell without job control."""
    process = child(READING, before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    process.stdin.close()
    assert ended(process) == ("went on\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_ends_quietly(number):
    """An interrupt is its normal end."""
    process = subprocess.Popen(
        [MP, "emulator", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    while "Serving until interrupted" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert (errors, process.returncode) == ("", 128 + number)
