"""Reporting of a run: metrics, progress bars, TensorBoard curves and pictures."""
