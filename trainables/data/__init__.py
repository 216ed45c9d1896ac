"""Data sources: where labelled text comes from, one per file."""
