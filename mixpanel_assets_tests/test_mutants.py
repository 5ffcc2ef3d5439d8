"""Mutation testing on a small project: which faults in a module no test notices."""

import subprocess
import sys
from pathlib import Path

SHOP = """
def paid(orders):
    return f"SELECT count(*) FROM {orders} WHERE price > 0 AND price < 9"


def is_large(items):
    return items > 3
"""
TESTS = """
import duckdb
import shop


def test_paid():
    duckdb.execute("CREATE TABLE orders AS SELECT unnest([1, 2, 9]) AS price")
    assert duckdb.execute(shop.paid("orders")).fetchone() == (2,)


def test_large():
    assert shop.is_large(5)
    assert not shop.is_large(2)
"""


def test_faults_that_no_test_notices_are_shown(tmp_path):
    """Faults in Python and in SQL that no test notices are printed, and the module is unchanged."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_shop.py").write_text(TESTS)
    arguments = ["shop.py", "--tests", "tests", "--root", str(tmp_path), "--large", "duckdb"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mutants", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    shown = {line[1:].strip() for line in done.stdout.splitlines() if line.startswith("+ ")}
    assert shown == {
        'return f"SELECT count(*) FROM {orders} WHERE price >= 0 AND price < 9"',
        "return items >= 3",
        "return items > 4",
    }
    assert "9 of 9 mutants, 9 tested" in done.stdout
    assert "66.7% noticed" in done.stdout
    assert (tmp_path / "shop.py").read_text() == SHOP
