"""M3PO and the harness that compares it with its rivals (see README.md for the map of the house)."""

__version__ = "0.1.0"
