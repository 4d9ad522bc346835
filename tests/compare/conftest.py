import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `made`: pytest's importlib mode does not
