"""Evaluation (both stages): protocols that print a number and everything that decides it, resumable, as one report."""
