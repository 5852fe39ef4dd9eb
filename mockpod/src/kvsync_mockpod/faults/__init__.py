"""Faults that a pod can inject: the plan (`spec`), the decision which fault fires (`active`), and their effects.

Faults are seeded, counted and written into the ground-truth log, so that a checker knows which ones occurred.
"""
