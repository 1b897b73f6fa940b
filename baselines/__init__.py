"""Rival agents, each complete in its own room; none imports another."""
