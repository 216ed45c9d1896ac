"""Weightings: how much each teacher counts for each example; one file each."""
