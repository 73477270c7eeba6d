"""State, trainer, optimizer partition, checkpoints, metrics."""
