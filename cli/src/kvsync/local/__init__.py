"""Engines, index and router as separate processes on this machine, each at a loopback address of its own."""
