"""Reading and writing published checkpoints and saved tuners."""
