"""The harness: studies, store, training loop, launchers and the command line. Knows no algorithm."""
