"""The way of the data: plan, fetch, store, report. Plain Python, no Dagster.

`client` sends requests and `warehouse` stores rows; here a range of days becomes requests,
responses become stored days, and what went wrong on the way is reported.
"""
