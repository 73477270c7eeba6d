"""Outliers among objects with several views, some of them missing."""
