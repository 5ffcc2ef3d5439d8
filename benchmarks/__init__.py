"""Measurements that anyone can repeat: `python -m benchmarks.load --events 1000000`."""
