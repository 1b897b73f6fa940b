"""TD-MPC2: planning in an implicit world model with a policy prior (Hansen et al. 2024), for one task or many.

To read: ``agent``, with the losses and the paper's symbols; ``model``; ``planner``; ``config``.
"""
