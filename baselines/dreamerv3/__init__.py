"""DreamerV3 (Hafner et al. 2025, Nature 640, doi 10.1038/s41586-025-08744-2), for vectors or images.

Follows the authors' current code (github.com/danijar/dreamerv3), whose losses and updates it reproduces. Where this
differs:

* numbers are float32 instead of bfloat16, which CPUs are slow with; latent states in replay are half precision, finer
  than bfloat16, and classes instead of one-hot vectors, which is the same in less memory;
* evaluation takes the mode of the latents and the mean of the actor, where the original samples both: what this harness
  compares acts without exploring;
* in joint suites the task's one-hot code is appended to observations, actions and features; the original has one task;
* replay keeps 1 million observations instead of 5, which is memory: ``replay_capacity`` says how much.

To read: ``agent``; ``learner``, which maps the paper's symbols; ``rssm``; ``model`` and its layers (``nets``,
``images``); ``replay``; ``optim``; ``config``.
"""
