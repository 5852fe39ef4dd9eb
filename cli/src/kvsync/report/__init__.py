"""The parts that reports share: atomic files, versions and sentences."""
