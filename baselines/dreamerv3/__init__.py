"""DreamerV3 (Hafner et al. 2025, Nature 640, doi 10.1038/s41586-025-08744-2), for vectors or images.

Follows the authors' current code (github.com/danijar/dreamerv3). Where this differs: numbers are float32, the latent
states in replay half precision; evaluation takes the mode of the latents and the mean of the actor; the state that a
sequence's last row ends in is not written back; in joint suites the task's one-hot code is appended to observations,
actions and features.
"""
