"""Records of trained and corrected models in MLflow: what was done, and which model was in production when."""

from __future__ import annotations

import json
import math
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import UnlearningResult
from graphunlearn.runs.exported import check_names_nobody, described
from graphunlearn.runs.run import Run
from graphunlearn.serving.embeddings import needed

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["in_production", "log_to_mlflow"]

PREFIX = "graphunlearn"
FROM, UNTIL, MODEL = (f"{PREFIX}.{name}" for name in ("served_from", "served_until", "fingerprint"))
LONGEST = 250
"""The longest value of a parameter that every MLflow server stores."""


def log_to_mlflow(
    run: Run | UnlearningResult | str | Path,
    tracking_uri: str,
    *,
    experiment: str = "graphunlearn",
    report: str | Path | None = None,
    registered_model: str | None = None,
    served_from: datetime | None = None,
) -> str:
    """Record a trained or corrected model as a run of MLflow.

    Parameters are the method and its options, the settings, and numbers of users, items and interactions; metrics are
    times, memory and the figures of the audit; ``report.json`` and ``report.html`` are artefacts, and so are
    ``config.json`` and ``unlearning.json`` in the manner of :func:`~graphunlearn.export`. No raw id is recorded, and no
    weights, which would have to be deleted from the store of artefacts at the next request.

    With ``registered_model``, a version of that model is registered, with the fingerprint of its weights and the time
    from which it serves in its tags; the version that served before gets the time at which it ended, and its
    fingerprint is deleted, since it would confirm guesses of what was forgotten. See :func:`in_production`.

    Args:
        run: A run, its folder, or the result of a method.
        tracking_uri: Address of the MLflow server, or of its database.
        experiment: Name of the experiment; it is created if it does not exist.
        report: Folder of ``report.json`` and ``report.html``; by default the folder of the run, if it has them.
        registered_model: Name of the registered model; ``None`` registers nothing.
        served_from: The time from which the model serves, with a time zone; by default now.

    Returns:
        The id of the MLflow run.

    Raises:
        ImportError: MLflow is not installed.
        ArgumentError: The server does not answer or refuses, the report is broken or names what was forgotten, or
            ``served_from`` has no time zone or is before the time of the version that serves.
    """
    subject = Run.load(Path(run)) if isinstance(run, (str, Path)) else run
    given = Path(run) if report is None and isinstance(run, (str, Path)) else None if report is None else Path(report)
    read = _read_report(given, required=report is not None)
    content = _content(subject, read)
    when = _utc(datetime.now(timezone.utc) if served_from is None else served_from, "served_from")
    needed("mlflow", "mlflow")
    _check_name(registered_model)
    with _answering(tracking_uri) as client:
        serving = None if registered_model is None else _newest(client, registered_model)
        if serving is not None and _since(serving) > when:
            got = f"{when.isoformat()}, before {serving.tags[FROM]} of version {serving.version}"
            raise ArgumentError("served_from", "be after the start of the version that serves", got)
        found = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if found is None else found.experiment_id
        info = client.create_run(number, run_name=content["name"], tags=content["tags"]).info
        try:
            for name, value in content["params"].items():
                client.log_param(info.run_id, name, value)
            for name, figure in content["metrics"].items():
                client.log_metric(info.run_id, name, figure)
            with tempfile.TemporaryDirectory() as scratch:
                for name, facts in content["files"].items():
                    path = Path(scratch, f"{name}.json")
                    path.write_text(f"{json.dumps(facts, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
                    client.log_artifact(info.run_id, str(path), "model")
            for name in ("report.json", "report.html"):
                if read is not None and given is not None and (given / name).exists():
                    client.log_artifact(info.run_id, str(given / name))
            if registered_model is not None:
                source = f"{info.artifact_uri}/model"
                tags = {FROM: when.isoformat(), MODEL: fingerprint(subject.model)}
                _register(client, registered_model, source, info.run_id, tags, serving)
        except BaseException:
            client.set_terminated(info.run_id, "FAILED")
            raise
        client.set_terminated(info.run_id)
    return str(info.run_id)


def in_production(tracking_uri: str, registered_model: str, when: datetime | None = None) -> dict[str, Any] | None:
    """Return which version of a model served at a time, as :func:`log_to_mlflow` recorded it.

    Args:
        tracking_uri: Address of the MLflow server, or of its database.
        registered_model: Name of the registered model.
        when: The time, with a time zone; by default now.

    Returns:
        ``version``, ``run_id``, ``fingerprint`` (of the weights; ``None`` for a version that serves no longer),
        ``served_from`` and ``served_until``, which is ``None`` for the version that serves now; ``None`` if no version
        served then.

    Raises:
        ImportError: MLflow is not installed.
        ArgumentError: The server does not answer, or ``when`` has no time zone.
    """
    time = _utc(datetime.now(timezone.utc) if when is None else when, "when")
    needed("mlflow", "mlflow")
    _check_name(registered_model)
    with _answering(tracking_uri) as client:
        for version in _versions(client, registered_model):
            if _since(version) <= time:
                until = version.tags.get(UNTIL)
                facts = {"version": str(version.version), "run_id": version.run_id}
                facts |= {"fingerprint": version.tags.get(MODEL), "served_from": version.tags[FROM]}
                return facts | {"served_until": until}
    return None


def _check_name(registered_model: str | None) -> None:
    """Check a name that becomes a part of queries to the server."""
    if registered_model is not None and (not registered_model or re.search(r"['\"\\/:]", registered_model)):
        expected = "be a name without quotes, slashes and colons"
        raise ArgumentError("registered_model", expected, repr(registered_model))


def _content(subject: Run | UnlearningResult, report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the name, tags, parameters, metrics and files of a record."""
    forgotten = None if isinstance(subject, UnlearningResult) else subject.forgotten
    result = subject if isinstance(subject, UnlearningResult) else None if forgotten is None else forgotten.result
    params: dict[str, Any] = {}
    files: dict[str, Any] = {}
    tags: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    if isinstance(subject, Run):
        params |= {"model": subject.spec.facts(), "settings": asdict(subject.settings), "data": subject.dataset}
        params |= {"objective": {"name": type(subject.objective).__name__, **vars(subject.objective)}}
    if result is not None:
        before, graph = (None, None) if forgotten is None else (forgotten.original, forgotten.graph)
        config, facts = described(result, before, graph, None, None, secrets.token_bytes(32))
        for name in ("digest", "digest_is"):
            facts["request"].pop(name)  # its key is thrown away
        for name in ("graph", "model"):  # the fingerprint of a model confirms guesses once it is the one before
            facts.pop(name)
        options = {} if forgotten is None else forgotten.options
        for argument, value in {"options": options, "report": report}.items():
            check_names_nobody(argument, value, result.request, result.graph if graph is None else graph)
        params |= {"method": result.method, "options": options, "request": facts["request"]}
        metrics |= {name: getattr(result, name) for name in ("seconds", "cpu_seconds", "prepare_seconds")}
        metrics |= {"peak_memory_mb": None if result.peak_memory is None else result.peak_memory / 2**20}
        metrics |= {name: facts["request"][name] for name in ("removed", "kept")}
        tags |= {f"{PREFIX}.version": facts["versions"]["graphunlearn"], f"{PREFIX}.accepted": str(result.accepted)}
        files = {"config": config, "unlearning": facts}
    else:
        files = {"config": {"model": params["model"]}}
        params["method"] = "train"
    metrics |= {} if report is None else _figures(report)
    if report is not None:
        tags[f"{PREFIX}.verdict"] = str((_judged(report).get("verdict") or {}).get("status"))
    return {
        "name": params["method"],
        "tags": tags,
        "params": {_key(name): str(value)[:LONGEST] for name, value in _flat(params).items()},
        "metrics": {_key(name): float(value) for name, value in _flat(metrics).items() if _is_figure(value)},
        "files": files,
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one, with the names joined by dots."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        inner = {f"{name}.{key}": below for key, below in _flat(value).items()} if isinstance(value, Mapping) else None
        out |= {name: value} if inner is None else inner
    return out


def _key(name: str) -> str:
    """Return a name in the characters that MLflow allows."""
    name = name.replace("@", "_at_").replace("%", "_percent")
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _read_report(folder: Path | None, required: bool) -> dict[str, Any] | None:
    """Return the content of ``report.json`` in a folder."""
    path = None if folder is None else folder / "report.json"
    if path is None or not (path.exists() or required):
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _judged(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        got = f"'{path}': {' '.join(str(error).split())}"
        raise ArgumentError("report", "be a folder with the whole report of an audit", got) from None
    return report


def _judged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of the corrected model in a report of one method."""
    entry: dict[str, Any] = next(one for one in report["methods"] if one["name"] not in ("original", "retrain"))
    return entry


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of an audit: ranking, forgetting, attacks and distances."""
    entry = _judged(report)
    nested = ("forgetting", "attacks")
    figures = {name: entry.get(name) or {} for name in ("utility", "distance_to_retrain", "topk_overlap")}
    for name in nested:
        found = (entry.get(name) or {}).items()
        figures[name] = {key: one.get("value") for key, one in found if isinstance(one, Mapping)}
    return figures


def _utc(when: datetime, argument: str) -> datetime:
    if when.tzinfo is None:
        raise ArgumentError(argument, "have a time zone", when.isoformat())
    return when.astimezone(timezone.utc)


@contextmanager
def _answering(uri: str) -> Iterator[MlflowClient]:
    """Yield a client of a server; its errors become one sentence."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    expected = "be the address of an MLflow server or of its database"
    try:
        if uri.startswith(("http://", "https://")):  # the client itself tries a dead server again for minutes
            urlopen(f"{uri.rstrip('/')}/health", timeout=30).close()
    except HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        raise ArgumentError("tracking_uri", expected, f"'{uri}': {error}") from None
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        got = " ".join(str(error).split())
        raise ArgumentError("tracking_uri", expected, f"'{uri}': {got[:LONGEST]}") from None


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return the versions of a registered model that have a time, the last to serve first."""
    found = [v for v in client.search_model_versions(f"name = '{name}'") if FROM in v.tags]
    return sorted(found, key=lambda version: (_since(version), int(version.version)), reverse=True)


def _newest(client: MlflowClient, name: str) -> ModelVersion | None:
    return next(iter(_versions(client, name)), None)


def _since(version: ModelVersion) -> datetime:
    return datetime.fromisoformat(version.tags[FROM])


def _register(
    client: MlflowClient, name: str, source: str, run_id: str, tags: dict[str, str], serving: ModelVersion | None
) -> None:
    """Register a version, and close the one that served before."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, source, run_id, tags=tags)
    if serving is not None:
        client.set_model_version_tag(name, serving.version, UNTIL, tags[FROM])
        if MODEL in serving.tags:
            client.delete_model_version_tag(name, serving.version, MODEL)
