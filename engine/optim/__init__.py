"""Optimizers, learning-rate schedules, parameter groups and the EMA of the weights."""
