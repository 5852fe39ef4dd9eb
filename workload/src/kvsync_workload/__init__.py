"""Workloads, and what can be said of them without an engine.

Live and offline replay, the demo and the benchmarks read traces, time arrivals and make prompts here, so that the same
trace means the same requests everywhere. The package imports nothing else of this project; `docs/workloads.md` states
its rules.
"""
