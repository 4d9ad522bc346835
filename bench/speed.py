"""Writes bench/NAME.md and bench/NAME.png: what `gss benchmark NAME` says on this machine, which should be idle.

python bench/speed.py toy camvid   # default; minutes for toy, half an hour for CamVid on two cores
"""

import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

BENCH = Path(__file__).resolve().parent
PAGE = """# Speed of {name}

    python bench/speed.py {name}

{date}. What the columns mean: [docs/how-to/benchmark.md](../docs/how-to/benchmark.md).

```
{table}
```

![Milliseconds per image, logarithmic]({name}.png)
"""


def write_page(name: str) -> None:
    """Measure an experiment and write its page."""
    with tempfile.TemporaryDirectory() as folder:
        json = Path(folder) / f"{name}.json"
        command = [sys.executable, "-m", "gss", "benchmark", name, "-o", str(json)]
        text = subprocess.run(command, cwd=BENCH.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
        table = "".join(text.partition("Speed of ")[1:]).partition("\n\nwrote ")[0]
        (BENCH / f"{name}.png").write_bytes(json.with_suffix(".png").read_bytes())
    (BENCH / f"{name}.md").write_text(PAGE.format(name=name, date=date.today(), table=table))


for name in sys.argv[1:] or ("toy", "camvid"):
    write_page(name)
