"""Traces, the prompts made from them, the client that replays them, and what an unlimited cache would have served."""
