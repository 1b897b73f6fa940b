"""Ways to run cells; every launcher only calls ``run_cell(path)``."""
