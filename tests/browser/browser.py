"""A real headless Chromium, driven through its driver: it sees pages as people do, and nothing beyond this machine."""

import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_NOT_THE_WORLD = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


class Browser:
    """One window.

    Args:
        width, height: of the page, CSS pixels.
    """

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        self._profile = tempfile.mkdtemp(prefix="gss-browser-")
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            f"--user-data-dir={self._profile}",
            f"--window-size={width},{height}",
            f"--host-resolver-rules={_NOT_THE_WORLD}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))

    def open(self, page: Path | str) -> None:
        """Show a file or an address."""
        self.driver.get(page.absolute().as_uri() if isinstance(page, Path) else page)

    def script(self, text: str, *arguments: Any) -> Any:
        """Run JavaScript; `return` gives a value back."""
        return self.driver.execute_script(text, *arguments)

    def problems(self) -> list[str]:
        """What the console said of errors since the last call: broken scripts, resources that were not found."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Write what is seen as PNG, with `whole` the page to its end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            height = self.script("return document.documentElement.scrollHeight")
            width = self.script("return document.documentElement.clientWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
            path.write_bytes(base64.b64decode(taken["data"]))
        else:
            self.driver.save_screenshot(str(path))
        return path

    def close(self) -> None:
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)


def start() -> Browser:
    """A browser, or a skipped test where Chromium or its driver is not installed."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} (Debian: chromium, chromium-driver): pages were not looked at")
    return Browser()
