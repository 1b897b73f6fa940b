"""M3PO: implicit world model, planning, discrepancy bonus, trust-region updates.

To read: ``agent``, the loop; ``model``, which maps the paper's symbols; ``losses`` and ``exploration``, the formulas;
``fresh``, the policy gradient on rollouts; ``config``. ``diagnosis`` only looks.
"""
