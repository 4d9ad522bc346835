import sys
from pathlib import Path

for room in ("cluster", "slurm"):  # pytest's importlib mode does not
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
