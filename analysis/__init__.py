"""What is concluded: scores, intervals, figures, reports. Reads result files only."""
