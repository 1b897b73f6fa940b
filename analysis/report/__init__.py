"""What is written: tables, sentences and pages of a study and of a search."""
