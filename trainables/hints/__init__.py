"""Hints: compare features or raw logits; one file each."""
