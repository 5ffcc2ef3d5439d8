"""`./run mutants`: whether tests notice small faults in the modules that decide what is stored.

Each mutant is one fault of `mutations`. Two processes test mutants, each in a copy of the project,
with tests that run the changed statement. A mutant is killed by a test that fails, or times out by
a limit of CPU time. `EQUAL` has the reasons why some change nothing; they do not count.
"""
# Why no library: mutmut, cosmic-ray and mutatest do not change SQL in text. The first two take no
# seed for a sample and choose tests by function or not at all; the last is no longer kept.

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.mutations import EQUAL, Mutant, Mutations

MODULES = [
    "mixpanel_assets/client/verdict.py",
    "mixpanel_assets/client/profiles.py",
    "mixpanel_assets/warehouse/profile_pages.py",
    "mixpanel_assets/rules/made_ids.py",
    "mixpanel_assets/warehouse/staging.py",
    "mixpanel_assets/warehouse/vanished.py",
    "mixpanel_assets/loading/plan.py",
]
# Tests of other folders start processes and Dagster runs, which is too slow for each mutant.
TESTS = [f"mixpanel_assets_tests/{room}" for room in ("client", "rules", "loading", "warehouse")]
LEAST_KILLED = 0.9
PROCESSES = 2
TESTS_SECONDS = 60.0  # CPU time of the tests of one mutant; the quickest are chosen
FIRST_FILES = 3  # enough for most mutants; to import all files of tests takes longer
# A mutant that waits without end takes no CPU time. A working one does, on a busy machine too.
STILL_SECONDS, LEAST_CPU_SECONDS = 120, 1
# Imported once instead of by each process.
LARGE = (
    *("dagster", "dagster_duckdb", "duckdb", "httpx", "hypothesis", "pandas", "pyarrow"),
    *("pydantic_settings", "pytest", "uvicorn"),
)
RESULTS = ("killed", "timed out", "equal", "survived", "not reached")
MTIMES = itertools.count(1)  # Python compiles a file again if its time has changed


class Recorder:
    """Records the CPU time of each test, and the lines that it runs."""

    def __init__(self, root: Path, modules: Sequence[str]) -> None:
        from coverage import Coverage

        os.environ["COVERAGE_CORE"] = "ctrace"  # the other ones cannot tell tests apart
        paths = [str(root / module) for module in modules]
        self._coverage = Coverage(data_file=None, config_file=False, include=paths)
        self._root, self._modules = root, modules
        self._seconds: dict[str, float] = {}
        self._began = 0.0
        self._coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._coverage.switch_context(nodeid)
        self._began = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._coverage.switch_context("")
        self._seconds[nodeid] = time.process_time() - self._began

    def pytest_unconfigure(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {one: data.contexts_by_lineno(str(self._root / one)) for one in self._modules}
        (self._root / "record.json").write_text(json.dumps([self._seconds, lines]))


class Chosen:
    """Runs the chosen tests alone, the quickest files first."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self._seconds]
        by_file = Counter[Path]()
        for item in items:
            by_file[item.path] += self._seconds[item.nodeid]
        items.sort(key=lambda item: (by_file[item.path], item.path))


@dataclass
class Record:
    """By test its seconds, and by module and line the tests that run it."""

    seconds: dict[str, float]
    tests: dict[str, dict[int, set[str]]]

    @classmethod
    def merged(cls, roots: Sequence[Path], modules: Sequence[str]) -> Record:
        record = cls({}, {module: {} for module in modules})
        for root in roots:
            seconds, lines = json.loads((root / "record.json").read_text())
            record.seconds |= seconds
            for module, tests in lines.items():
                for line, names in tests.items():
                    record.tests[module].setdefault(int(line), set()).update(set(names) - {""})
        return record

    def choose(self, mutant: Mutant) -> list[dict[str, float]]:
        """Return tests that may notice a mutant, and their seconds, in up to three rounds.

        First the tests of the module, then those of the few files with most tests, then others;
        in all, as many of the quickest as the time allows.
        """
        by_line = self.tests[mutant.module]
        found = set[str]().union(*(by_line.get(line, ()) for line in mutant.lines or by_line))
        own = f"test_{Path(mutant.module).stem.partition('_')[0]}"
        is_other = {test: not Path(_file_of(test)).name.startswith(own) for test in found}
        chosen, total = list[str](), 0.0
        for test in sorted(found, key=lambda test: (is_other[test], self.seconds[test])):
            if total + self.seconds[test] < TESTS_SECONDS:
                total += self.seconds[test]
                chosen.append(test)
        others = Counter(_file_of(test) for test in chosen if is_other[test])
        files = dict(others.most_common(FIRST_FILES))
        rounds: list[dict[str, float]] = [{}, {}, {}]
        for test in chosen:
            place = (1 if _file_of(test) in files else 2) if is_other[test] else 0
            rounds[place][test] = self.seconds[test]
        return [one for one in rounds if one]


def _file_of(test: str) -> str:
    return test.split("::")[0]


class Copy:
    """A copy of the project, and the process that runs tests in it."""

    def __init__(self, original: Path, root: Path) -> None:
        self.root = root
        self.mutant: Mutant | None = None
        self._rounds = list[dict[str, float]]()
        self._pid = 0
        self._looked_at, self._cpu_seconds = 0.0, 0.0
        shutil.copytree(original, root, ignore=shutil.ignore_patterns(".*", "dist", "*.pyc"))

    def try_mutant(self, mutant: Mutant, rounds: Sequence[dict[str, float]]) -> None:
        """Start the first round of tests of a mutant."""
        self.mutant, self._rounds = mutant, list(rounds)
        self._start_round()

    def _start_round(self) -> None:
        seconds = self._rounds.pop(0)
        limit = 20 + 5 * sum(seconds.values())
        self.start(sorted(set(map(_file_of, seconds))), limit, lambda: Chosen(seconds), "-x")

    def start(self, tests: Sequence[str], cpu_seconds: float, plugin: Any, *options: str) -> None:
        """Run pytest in a fork of this process; `plugin` makes its plugin."""
        self._looked_at, self._cpu_seconds = time.monotonic(), 0.0
        if self.mutant:
            self._write(self.mutant.text)
        self._pid = os.fork()
        if not self._pid:
            code = 70
            try:
                code = self._run_pytest(tests, int(cpu_seconds), plugin, *options)
            finally:
                sys.stdout.flush()
                os._exit(code)

    def _run_pytest(self, tests: Sequence[str], limit: int, plugin: Any, *options: str) -> int:
        os.setsid()
        os.chdir(self.root)
        sys.path[0] = os.environ["PYTHONPATH"] = str(self.root)  # also for processes of tests
        output = os.open(self.root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        import pytest
        from hypothesis import Phase, settings

        # A failure is enough: no shorter example of it is looked for.
        settings.register_profile("brief", phases=[Phase.explicit, Phase.generate])
        settings.load_profile("brief")
        quiet = ("-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
        temporary = f"--basetemp={self.root / 'tmp'}"
        arguments = [*tests, *quiet, temporary, "--hypothesis-seed=0", *options]
        return int(pytest.main(arguments, plugins=[plugin()]))

    def exit_code(self) -> int | None:
        """Return the exit code of an ended process, negative if a signal ended it; else None."""
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if not ended:
            self._end_if_still()
            return None
        self.end()
        if not status and self._rounds:
            self._start_round()
            return None
        return os.waitstatus_to_exitcode(status)

    def _end_if_still(self) -> None:
        if time.monotonic() - self._looked_at < STILL_SECONDS:
            return
        cpu_seconds = sum(psutil.Process(self._pid).cpu_times()[:4])
        if cpu_seconds - self._cpu_seconds < LEAST_CPU_SECONDS:
            os.killpg(self._pid, signal.SIGKILL)
        self._looked_at, self._cpu_seconds = time.monotonic(), cpu_seconds

    def end(self) -> None:
        """End the process and those that it has started, and undo the mutant."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        self._pid = 0
        if self.mutant:
            self._write(self.mutant.source)

    @property
    def output(self) -> str:
        return (self.root / "output.txt").read_text(errors="replace")

    def _write(self, text: bytes) -> None:
        assert self.mutant
        path = self.root / self.mutant.module
        path.write_bytes(text)
        moment = next(MTIMES)
        os.utime(path, (moment, moment))


def record_tests(copies: Sequence[Copy], modules: Sequence[str], tests: Sequence[str]) -> Record:
    """Run all tests without a mutant, a part of them in each copy."""
    root = copies[0].root
    given = [root / test for test in tests]
    files = [path for one in given for path in (sorted(one.rglob("test_*.py")) or [one])]
    files.sort(key=lambda path: path.stat().st_size)
    used = copies[: len(files)]  # without a file, pytest would run all tests
    for number, copy in enumerate(used):
        part = [str(path.relative_to(root)) for path in files[number :: len(used)]]
        plugin = lambda copy=copy: Recorder(copy.root, modules)  # noqa: E731
        copy.start(part, 3600, plugin, "-k", "not lake and not s3")
    for copy in used:
        while (code := copy.exit_code()) is None:
            time.sleep(0.1)
        if code not in (0, 5):  # 5: this part has no test
            sys.exit(f"mutants: tests fail without a mutant.\n{copy.output}")
    return Record.merged([copy.root for copy in used], modules)


def try_mutants(
    copies: Sequence[Copy], mutants: Sequence[Mutant], record: Record, deadline: float
) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with its result, in the order in which they end, until the deadline."""
    waiting, idle, busy = list(reversed(mutants)), list(copies), list[Copy]()
    while (waiting or busy) and time.monotonic() < deadline:
        while waiting and idle:
            mutant = waiting.pop()
            if mutant.line in EQUAL:
                yield mutant, "equal"
                continue
            if not (rounds := record.choose(mutant)):
                yield mutant, "not reached"
                continue
            copy = idle.pop()
            copy.try_mutant(mutant, rounds)
            busy.append(copy)
        for copy in list(busy):
            if (code := copy.exit_code()) is not None and copy.mutant:
                if code in (5, 70):  # 5: no test ran
                    raise RuntimeError(copy.output)
                yield copy.mutant, "timed out" if code < 0 else "killed" if code else "survived"
                busy.remove(copy)
                idle.append(copy)
        time.sleep(0.02)


def main() -> int:
    """Print the results by module, and the mutants that no test has noticed."""
    parser = argparse.ArgumentParser(prog="./run mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, help="default: %(default)s")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="default: %(default)s")
    parser.add_argument("--large", nargs="*", default=LARGE, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="%(default)s")
    parser.add_argument("--number", type=int, default=300, help="of mutants (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="at most (%(default)s)")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    every = [one for module in options.modules for one in Mutations(options.root, module).mutants()]
    unknown = EQUAL.keys() - {mutant.line for mutant in every}
    if options.modules == MODULES and unknown:
        sys.exit(f"mutants: no fault makes these lines of `EQUAL` any more: {sorted(unknown)}")
    sample = random.Random(options.seed).sample(every, min(options.number, len(every)))
    for name in options.large:
        importlib.import_module(name)
    memory = Path("/dev/shm")
    results: list[tuple[Mutant, str]] = []
    with ExitStack() as stack:
        parent = stack.enter_context(
            tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
        )
        copies = [Copy(options.root, Path(parent, str(n))) for n in range(PROCESSES)]
        for copy in copies:
            stack.callback(copy.end)
        record = record_tests(copies, options.modules, options.tests)
        tried = try_mutants(copies, sample, record, deadline)
        progress = Console(stderr=True)
        for mutant, result in track(tried, "mutants", len(sample), console=progress):
            results.append((mutant, result))
            if result in ("survived", "not reached"):
                print(f"{result}:\n{mutant.diff()}\n", flush=True)
    return report(results, options.modules, f"{len(sample)} of {len(every)} mutants")


def report(results: Sequence[tuple[Mutant, str]], modules: Sequence[str], sample: str) -> int:
    """Print the table, and return the exit code."""
    table = Table("module", *RESULTS, title=f"{sample}, {len(results)} tested")
    for module in modules:
        counts = Counter(result for mutant, result in results if mutant.module == module)
        table.add_row(
            module.removeprefix("mixpanel_assets/"), *(str(counts[result]) for result in RESULTS)
        )
    counts = Counter(result for _, result in results)
    table.add_section()
    table.add_row("all", *(str(counts[result]) for result in RESULTS))
    Console().print(table)
    noticed = (counts["killed"] + counts["timed out"]) / max(1, len(results) - counts["equal"])
    print(f"{noticed:.1%} noticed; at least {LEAST_KILLED:.0%} are expected")
    return int(noticed < LEAST_KILLED)


if __name__ == "__main__":
    sys.exit(main())
