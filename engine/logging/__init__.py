"""What a run reports: metrics, progress, curves, pictures."""
