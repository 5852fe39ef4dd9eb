"""Runs `python -m kvsync_mockpod`."""

from kvsync_mockpod.main import main

main()
