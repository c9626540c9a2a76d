"""Cost, batch-norm recalibration, accuracy, criteria and statistics of candidates."""
