"""Sources and pipelines; knows no model."""
