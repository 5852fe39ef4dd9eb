"""Faults a pod can be told to commit, seeded and counted."""
