"""The way of the data: plan, fetch, store, report. Plain Python, no Dagster.

`client` knows how to ask and `warehouse` how to store; here a range of days becomes requests,
responses become stored days, and what went wrong on the way is reported.
"""
