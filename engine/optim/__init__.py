"""Optimizers, learning-rate schedules, parameter groups, the moving average of the weights."""
