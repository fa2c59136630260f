"""Baselines (evaluation): other published methods, written anew on the same generators, to be measured beside ours."""
