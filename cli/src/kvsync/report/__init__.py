"""What a run leaves behind: a JSON report, a self-contained page, a table on the terminal."""
