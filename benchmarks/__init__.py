"""Measurements that can be repeated, for example `python -m benchmarks.load --events 1000000`."""
