"""Faults a pod can be told to commit: the plan (`spec`), who decides (`plane`), and what is done to batches.

Seeded, counted, and written into the ground-truth log, so that a checker knows what was done.
"""
