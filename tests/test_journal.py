import resource

import pytest

from gss.errors import GssError, Interrupted
from gss.results.journal import Journal, read_journal


def test_header_events_and_reading(tmp_path):
    path = tmp_path / "work" / "check" / "journal.jsonl"
    journal = Journal(path, {"stage": "check", "experiment": "toy"})
    journal.params({"seed": 1, "training": {"lr": 0.1}})
    journal.tags({"host": "a"})
    journal.metrics(3, {"train/loss": 0.5})
    journal.artifact(tmp_path / "a.png")
    journal.end("finished")
    header, *events = read_journal(path)
    assert header["stage"] == "check" and header["experiment"] == "toy" and len(header["journal"]) == 32
    times = [event.pop("t") for event in events]
    assert times == sorted(times) and times[0] > 1_600_000_000_000
    assert events == [
        {"params": {"seed": 1, "training.lr": 0.1}},
        {"tags": {"host": "a"}},
        {"step": 3, "m": {"train/loss": 0.5}},
        {"artifact": "a.png"},
        {"end": "finished"},
    ]


def test_a_second_opening_writes_only_what_is_new(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path, {"stage": "train"})
    first.params({"lr": 1})
    first.tags({"job": 1})
    first.metrics(5, {"a": 1.0})
    first.metrics(10, {"a": 2.0, "val": 0.5})
    before = path.read_bytes()
    second = Journal(path, {"stage": "another"})
    assert second.header == first.header
    second.params({"lr": 1})
    second.tags({"job": 1})
    second.metrics(5, {"a": 1.0})
    second.metrics(10, {"a": 2.0, "val": 0.5})
    assert path.read_bytes() == before
    second.tags({"job": 2})
    second.metrics(10, {"a": 2.0, "late": 1.0})
    second.metrics(15, {"a": 3.0})
    assert [event.get("tags") or event["m"] for event in read_journal(path)[-3:]] == [
        {"job": 2},
        {"late": 1.0},
        {"a": 3.0},
    ]


@pytest.mark.parametrize("torn", [b'{"t": 1, "step": 9, "m', b'{"t": 1, "step": 9, "m": {"a": 1.0}}', b"\xff"])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    Journal(path, {}).metrics(5, {"a": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert len(read_journal(path)) == 2
    Journal(path, {}).metrics(9, {"a": 4.0})
    assert path.read_bytes().startswith(whole + b'{"t"')
    assert [event["m"] for event in read_journal(path)[1:]] == [{"a": 1.0}, {"a": 4.0}]


def test_a_torn_header_is_written_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"journal": "12')
    Journal(path, {"stage": "x"})
    assert [event["stage"] for event in read_journal(path)] == ["x"]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, "finished"),
        (Interrupted("stop", step=1), "interrupted"),
        (GssError("mend"), "failed"),
        (KeyError("ours"), "failed"),
    ],
)
def test_as_a_context_it_writes_the_end(tmp_path, error, end):
    path = tmp_path / "journal.jsonl"
    try:
        with Journal(path, {}):
            if error is not None:
                raise error
    except Exception as raised:
        assert raised is error
    assert read_journal(path)[-1]["end"] == end


def test_nan_stays_readable(tmp_path):
    Journal(tmp_path / "j", {}).metrics(1, {"a": float("nan")})
    assert read_journal(tmp_path / "j")[1]["m"]["a"] != 0
    assert read_journal(tmp_path / "absent") == []


def test_faults_are_named(tmp_path):
    (tmp_path / "text").write_text("no json\n")
    with pytest.raises(GssError, match="not a journal"):
        Journal(tmp_path / "text", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(GssError, match="cannot write the journal"):
        Journal(tmp_path / "file" / "journal.jsonl", {})


def test_a_failing_disk_is_named_and_nothing_torn_stays(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, {})
    journal.metrics(1, {"a": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(GssError, match=r"(?s)cannot write the journal: File too large.*make room"):
            journal.metrics(2, {"a": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    Journal(path, {}).metrics(2, {"a": 2.0})
    assert [event["m"]["a"] for event in read_journal(path)[1:]] == [1.0, 2.0]
