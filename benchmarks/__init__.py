"""Measurements: each prints a ratio against something named."""
