"""Losses: compare one student with one teacher; one file each."""
