"""How fast an experiment is on this machine, and where its time and memory go."""
