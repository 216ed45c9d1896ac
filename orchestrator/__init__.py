"""What to run, where, and what came out."""
