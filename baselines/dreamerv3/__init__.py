"""DreamerV3 (Hafner et al. 2025, Nature 640, doi 10.1038/s41586-025-08744-2), for vector observations.

Follows the authors' current code (github.com/danijar/dreamerv3). Where this differs: training sequences start from
the zero state instead of a stored latent state, replay is uniform without a queue of the newest steps, and numbers
are float32. In joint suites the task's one-hot code is appended to observations, actions and features.
"""
