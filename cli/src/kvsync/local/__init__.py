"""Engines, index and router as processes on this machine, each with a loopback address of its own."""
