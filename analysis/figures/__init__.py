"""What is drawn: figures of a study and of a search, their palette, and their rendering to files."""
