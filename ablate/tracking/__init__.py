"""The record's copy in MLflow, which may be down.

mirror  during a run, in a thread of its own; afterwards by `python -m ablate.sync`
push    the record's files -> a run in MLflow, each figure once
store   where MLflow is: an address, a folder; databases made and opened
"""
