"""Proximal policy optimisation for continuous control (Schulman et al. 2017), for one task or many."""
