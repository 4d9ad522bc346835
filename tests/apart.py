"""Programs with namespaces of their own: another host name or another /dev/shm, and the machine does not notice."""

import subprocess

import pytest


def apart(*namespaces: str) -> list[str]:
    """What to write before `sh -c ...` so that it runs as root in new namespaces (`--uts`, `--mount`), or a skip."""
    command = ["unshare", "--map-root-user", *namespaces]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:  # containers and some kernels refuse
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    return command
