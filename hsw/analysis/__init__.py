"""Studies: reading the runs of one, grouping them, and the statistics of what they reached."""
