"""Command lines, one file per task family."""
