"""M3PO: implicit world model, planning, discrepancy bonus, trust-region updates."""
