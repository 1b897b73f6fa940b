"""What is measured: tasks, protocols, environments, seeds. Knows nothing of agents."""
