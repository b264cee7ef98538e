"""Runs that forget: reading, grouping beside retraining, tables, and their part of the page."""
