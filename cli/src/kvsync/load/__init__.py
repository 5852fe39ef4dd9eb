"""The client that replays prompts over HTTP, and the numbers made from its outcomes."""
