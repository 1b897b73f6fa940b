"""Uniformly random actions: the floor every score is seen against."""
