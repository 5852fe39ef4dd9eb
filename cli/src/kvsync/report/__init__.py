"""The parts that reports share: charts, pages, atomic files and versions."""
