"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), for one task or many.

To read: ``agent``, which maps the paper's symbols; ``networks``; ``replay``; ``config``.
"""
