"""The TF-IDF floor: what a linear model on word or character n-grams reaches in seconds.

A teacher below it is a warning, a student below it a reason not to ship.

Legend: N rows, C classes, F features.
"""

from __future__ import annotations

VERSION = 1
MOST_FEATURES = 200_000
MOST_COEFFICIENTS = 4_000_000
MOST_STEPS = 60
INSPECTED_ROWS = 1000
"""Bounds that keep the fit below a minute on one core at 90,000 rows."""
