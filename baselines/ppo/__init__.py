"""Proximal policy optimisation for continuous control (Schulman et al. 2017), for one task or many.

To read: ``agent``, which maps the paper's symbols; ``gradients`` of its losses; ``networks``; ``config``.
"""
