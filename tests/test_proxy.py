"""A proxy that refuses is named by whoever needed it, without its password."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gss.checkpoints import read_backbone_weights
from gss.doctor import experiments
from gss.errors import GssError
from gss.proxy import by_proxy
from gss.recipes.gss.tokenizer.unpickle import import_openai
from gss.results.journal import Journal
from gss.tracking import mlflow_sync

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # what it found of proxies it keeps for the whole process


@pytest.fixture(params=["refuses", "is gone"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy as the environment names it, which lets nothing through."""
    server = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{server.getsockname()[1]}"
    if request.param == "is gone":
        server.close()
    else:
        threading.Thread(target=_refuse, args=(server,), daemon=True).start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:secret@{host}")
    yield host
    server.close()


def _refuse(server: socket.socket) -> None:
    while True:
        try:
            asking, _ = server.accept()
        except OSError:
            return
        with asking:
            asking.recv(4096)
            asking.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def assert_named(text: str, proxy: str, name: str = "HTTPS_PROXY") -> None:
    assert f"by the proxy http://{proxy} that {name} names" in text and "secret" not in text, text


@pytest.mark.parametrize(
    ("name", "value", "url", "shown"),
    [
        ("HTTPS_PROXY", "http://me:pw@proxy:3128", "https://a.b/c", "http://proxy:3128 that HTTPS_PROXY"),
        ("https_proxy", "proxy:3128", "https://a.b/c", "proxy:3128 that https_proxy"),
        ("ALL_PROXY", "socks5://proxy:1080", "http://a.b", "socks5://proxy:1080 that ALL_PROXY"),
        ("HTTP_PROXY", "http://proxy", "https://a.b", ""),
        ("HTTP_PROXY", "http://proxy", "sqlite:///x", ""),
    ],
)
def test_the_proxy_of_a_url(monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str, shown: str) -> None:
    monkeypatch.setenv(name, value)
    assert (shown in by_proxy(url)) if shown else by_proxy(url) == ""
    assert "pw" not in by_proxy(url)
    monkeypatch.setenv("NO_PROXY", "a.b")
    assert by_proxy(url) == ""


def test_downloads_name_it(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GssError) as caught:
        import_openai(
            "https://example.org/encoder.pkl",
            "https://example.org/decoder.pkl",
            encoder_sha256="0" * 64,
            decoder_sha256="0" * 64,
        )
    assert_named(str(caught.value), proxy)


@pytest.mark.parametrize("error", [OSError("no such file in the cache"), type("ProxyError", (Exception,), {})("403")])
def test_weights_that_cannot_be_had_name_it(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the client of the hub raises; it would try for a minute."""
    from gss._compat import import_timm

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setattr(import_timm(), "create_model", refused)
    with pytest.raises(GssError) as caught:
        read_backbone_weights("resnet18", "timm:a1_in1k", tmp_path)
    assert_named(str(caught.value), "proxy:3128")


def test_the_doctor_names_it(proxy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    (found,) = experiments.mlflow_store()
    assert found.state == "FAIL"
    assert_named(found.found, proxy, "HTTP_PROXY")
    toy = Path("config/experiments/toy.yaml").resolve().read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(toy.replace("name: test_resnet", "name: test_resnet, weights: 'timm:a1_in1k'"))
    told = [each.found for each in experiments.inputs(str(mine)) if "will be downloaded" in each.found]
    assert len(told) == 1
    assert_named(told[0], proxy)


def test_what_mlflow_lacks_names_it(proxy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    header = {"experiment": "a", "stage": "check", "dataset": "a", "config_sha256": "a" * 64}
    with Journal(tmp_path / "a/work/check/journal.jsonl", header) as journal:
        journal.metrics(0, {"x": 1.0})
    with pytest.raises(GssError) as caught:
        mlflow_sync.sync([tmp_path / "a"])
    assert_named(str(caught.value), proxy, "HTTP_PROXY")
