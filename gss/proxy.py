"""Proxies of the environment: a request that one of them refuses fails in words that do not mention it."""

import os
import re
import urllib.parse
import urllib.request


def by_proxy(url: str) -> str:
    """What the message about a failed request lacks: `, by the proxy http://proxy:3128 that HTTPS_PROXY names ...`.

    Args:
        url: what was asked for.

    Returns:
        Text without passwords; empty where the environment names no proxy for this URL.
    """
    parts = urllib.parse.urlsplit(url)
    names = [name for kind in (parts.scheme, "all") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")]
    name = next((name for name in names if os.environ.get(name)), None)
    if parts.scheme not in ("http", "https") or name is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    shown = re.sub(r"^(\w+://)?[^@/]*@", r"\1", os.environ[name])
    return f", by the proxy {shown} that {name} names; to go without it: NO_PROXY={parts.hostname}"
