"""What experiments need: data, weights, and a place for their numbers."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from gss.config import Experiment, data_folder, data_set_folder, list_file, load_experiment, taxonomy_file
from gss.config.load import PUT_IT_THERE
from gss.config.schema import Source
from gss.doctor.findings import Finding, fail, ok, warn
from gss.doctor.machine import call, file_system, is_network, nearest_folder
from gss.errors import GssError
from gss.proxy import by_proxy
from gss.tracking.store import tracking_uri

TRIAL_SECONDS = 600.0  # that all stages in small may take
_BACK = "training does not need it: the numbers wait and are delivered later"


def mlflow_store() -> Iterator[Finding]:
    """Whether MLflow's store answers; none is made."""
    uri = tracking_uri()
    shown = re.sub(r"//[^@/]*@", "//", uri)  # without a password
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        yield from _sqlite(Path(uri.removeprefix("sqlite:///")))
    elif scheme in ("http", "https"):
        yield from _server(uri, shown)
    elif scheme in ("postgresql", "mysql"):
        yield from _database(uri, shown)
    elif scheme == "file" or ":" not in uri:
        yield fail(
            "MLflow",
            f"{shown}: folders of files are refused by this MLflow",
            "MLFLOW_TRACKING_URI=sqlite:////absolute/path/mlflow.db, or a server",
        )
    else:
        yield warn("MLflow", f"{shown}: whether it answers is not looked at")


def _sqlite(path: Path) -> Iterator[Finding]:
    existing = nearest_folder(path.parent)
    kind = file_system(existing)
    if not path.exists():
        if existing != path.absolute().parent or not os.access(existing, os.W_OK):
            yield fail("MLflow", f"{path} cannot be made", "make its folder writable, or set MLFLOW_TRACKING_URI")
        elif is_network(kind):
            yield warn(
                "MLflow",
                f"{path} will be made on a network file system ({kind}), where SQLite is not safe",
                "run Snakemake on one host only, or set MLFLOW_TRACKING_URI to a local disk or a server",
            )
        else:
            yield ok("MLflow", f"{path} will be made when the first numbers come")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=3)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            runs = database.execute("SELECT count(*) FROM runs").fetchone()[0] if "runs" in tables else 0
    except sqlite3.Error as error:
        yield fail("MLflow", f"{path}: {error}", f"move it away: a new one gets all numbers of the journals; {_BACK}")
        return
    if "alembic_version" not in tables or any(name.startswith("_alembic_tmp") for name in tables):
        yield fail(
            "MLflow",
            f"{path} is a half-made store",
            f"move it away: a new one gets all numbers of the journals; {_BACK}",
        )
    elif not os.access(path, os.W_OK):
        yield fail("MLflow", f"{path} cannot be written", f"make it writable, or set MLFLOW_TRACKING_URI; {_BACK}")
    elif is_network(kind):
        yield warn(
            "MLflow",
            f"{path} is on a network file system ({kind}), where SQLite is not safe",
            "run Snakemake on one host only, or set MLFLOW_TRACKING_URI to a local disk or a server",
        )
    else:
        yield ok("MLflow", f"{path}, {runs} runs")


def _server(uri: str, shown: str) -> Iterator[Finding]:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=4):
            yield ok("MLflow", f"the server {shown} answers")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403) and not by_proxy(uri):  # a proxy's refusal looks the same
            yield warn(
                "MLflow",
                f"the server {shown} asks who you are",
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            )
        else:
            yield fail("MLflow", f"the server {shown} answers with {error.code} {error.reason}{by_proxy(uri)}", _BACK)
    except (OSError, ValueError) as error:
        yield fail(
            "MLflow",
            f"the server {shown} does not answer: {getattr(error, 'reason', error)}{by_proxy(uri)}",
            f"start it, or correct MLFLOW_TRACKING_URI; {_BACK}",
        )


def _database(uri: str, shown: str) -> Iterator[Finding]:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 4})
        with engine.connect() as connection:
            made = sqlalchemy.inspect(connection).has_table("alembic_version")
        yield ok("MLflow", f"the database {shown} answers; its tables {'exist' if made else 'will be made'}")
    except ImportError as error:
        yield fail("MLflow", f"{shown} needs a driver: {error}", "install it (PostgreSQL: pip install psycopg2-binary)")
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        yield fail(
            "MLflow",
            f"the database {shown} does not answer: {reason}",
            f"start it, or correct MLFLOW_TRACKING_URI; {_BACK}",
        )


def inputs(name: str) -> Iterator[Finding]:
    """Data, weights and checkpoints of an experiment, each with the place it is looked for."""
    experiment = load_experiment(name)
    missing = [
        fail(name, f"{what} {'is empty' if path.exists() else 'not found'}: {path.absolute()}", todo)
        for what, path, todo in _expected(experiment)
        if not _has_content(path)
    ]
    yield from missing
    for what, address, url in experiment.downloads():
        yield warn(
            name, f"{what} will be downloaded: {address}{_out_of_reach(url)}", "the job that does it needs a network"
        )
    if not missing:
        made = " (made by the workflow)" if experiment.data.generate else ""
        yield ok(name, f"data in {data_set_folder(experiment.data)}{made} and all files it names are there")


def trial(name: str, results: Path) -> Iterator[Finding]:
    """Every stage in small, where the experiment would compute on this machine and has all it needs."""
    try:
        if not all(_has_content(path) for _, path, _ in _expected(load_experiment(name))):
            return  # which is said elsewhere, too
    except GssError:
        return
    if shutil.which("sbatch"):
        yield ok(name, f"trainings are SLURM's affair; in a job, or here, `gss smoke {name}` tries them")
        return
    answer = call(sys.executable, "-m", "gss.doctor.trial", str(results), name, seconds=TRIAL_SECONDS, stop_first=True)
    yield from (Finding(**json.loads(line)) for line in answer.text.splitlines() if line.startswith("{"))
    if answer.problem:
        yield fail(name, answer.problem, f"gss smoke {name} shows all of it")


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists() and path.stat().st_size > 0


def _expected(experiment: Experiment) -> Iterator[tuple[str, Path, str]]:
    """What, where, and what to do without it."""
    data, base = experiment.data, data_folder()
    if not data.generate:
        root = data_set_folder(data)
        archives = {archive.file: base / archive.file for archive in data.archives}
        packed = bool(archives) and all(path.is_file() for path in archives.values())
        if not packed:  # else the workflow unpacks them
            advice = f"{PUT_IT_THERE}. {data.obtain}".rstrip(". ")
            if not root.is_dir():
                yield "data set", root, advice
            else:
                yield from _folders(data, root, advice)
                for source in data.sources:
                    yield from _folders(source, base / source.root, PUT_IT_THERE)
                if isinstance(data.classes, str) and data.classes.endswith(".csv"):
                    yield "class table", root / data.classes, PUT_IT_THERE
                for source in (data, *data.sources):
                    native = source.native_classes
                    if isinstance(native, str) and native.endswith(".csv"):
                        yield "table of native classes", base / source.root / native, PUT_IT_THERE
                    if source.taxonomy is not None:
                        yield "taxonomy", taxonomy_file(source.taxonomy), PUT_IT_THERE
    for name, found in experiment.evaluation.sets.items():
        yield from _folders(found, base / found.root, PUT_IT_THERE, name)
        if found.relabelled:
            yield f"relabelled labels of {name}", base / found.root / found.relabelled.labels, PUT_IT_THERE
        if found.model_taxonomy:
            yield "taxonomy", taxonomy_file(found.model_taxonomy), PUT_IT_THERE
    for what, _, path, todo in experiment.named_files():
        yield what, path, todo


def _folders(source: Source, root: Path, advice: str, name: str | None = None) -> Iterator[tuple[str, Path, str]]:
    """Those of images, and of labels that the workflow does not make; and lists of images.

    Args:
        name: of an evaluation set; else each split has its own.
    """
    for split, folders in source.splits.items():
        yield f"images of {name or split}", root / folders.images, advice
        if not source.prepared:
            yield f"labels of {name or split}", root / folders.labels, advice
        if folders.list:
            yield f"list of images of {name or split}", list_file(folders.list), PUT_IT_THERE


def _out_of_reach(url: str) -> str:
    """Why a download cannot be begun from here; empty where it can, or where its server says no."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=4).close()
    except urllib.error.HTTPError as error:
        refusal = by_proxy(url) if error.code in (403, 407) else ""
        return f", refused from here with {error.code} {error.reason}{refusal}" if refusal else ""
    except (OSError, ValueError) as error:
        return f", out of reach from here: {getattr(error, 'reason', error)}{by_proxy(url)}"
    return ""
