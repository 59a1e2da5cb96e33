"""Records in an MLflow server of the test's own, on this machine alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

import graphunlearn as gu
from graphunlearn.nn import FitSettings, build_model
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Forgotten, ModelSpec, Run
from graphunlearn.serving import in_production, log_to_mlflow

EXTRA = "MLflow is tested in an environment of its own (nox -s serving)"
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with SQLite on a free port of 127.0.0.1; it is stopped at the end."""
    pytest.importorskip("flask", reason=EXTRA)  # which the client alone does not bring
    pytest.importorskip("mlflow", reason=EXTRA)
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "a")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command + words, stdout=log, stderr=log, cwd=folder, env=os.environ | quiet, start_new_session=True
        )
        try:
            uri = f"http://127.0.0.1:{port}"
            for _ in range(240):
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    urlopen(f"{uri}/health", timeout=5).close()
                    break
                except (URLError, OSError):
                    time.sleep(0.5)
            else:
                pytest.fail((folder / "log").read_text())
            yield uri
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=60)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run after forgetting, with the report of its audit."""
    torch.manual_seed(0)
    graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=8, seed=1)
    train, validation, test = graph.random_split([0.8, 0.1, 0.1])
    spec, objective = ModelSpec("lightgcn", 4, 2), gu.BPR()
    model = build_model("lightgcn", train, 4, 2)
    settings = FitSettings(epochs=2, seed=7)
    gu.fit(model, train, objective=objective, settings=settings)
    request = gu.ForgetRequest("user", ["u3", "u11"])
    result = gu.IFRU(objective=objective).unlearn(model, train, request)
    about = {"dataset": "toys"}
    folder = tmp_path_factory.mktemp("runs")
    Run(spec, model, train, validation, test, objective, settings, about).save(folder / "a")
    forgotten = Forgotten(model, train, result, {"damping": "auto", "max_steps": 3})
    after = Run(spec, result.model, result.graph, validation, test, objective, settings, about, forgotten)
    after.save(folder / "b")
    audited = gu.audit(
        model, train, request, [result], test=test, objective=objective, settings=settings, retrain_seeds=2
    )
    audited.write(folder / "b")
    return folder / "b"


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_run_per_request_with_figures_and_report(server, run, tmp_path):
    client, folder = client_of(server), Run.load(run)
    number = log_to_mlflow(run, server, experiment="erasures")
    record = client.get_run(number)
    assert client.get_experiment(record.info.experiment_id).name == "erasures"
    assert record.info.status == "FINISHED"
    report = json.loads((run / "report.json").read_text())
    entry = next(one for one in report["methods"] if one["name"] == "ifru")
    figures = {"utility.recall_at_20": entry["utility"]["recall@20"], "kept": folder.train.num_interactions}
    figures |= {"forgetting.membership_auroc": entry["forgetting"]["membership_auroc"]["value"]}
    figures |= {"distance_to_retrain.test": entry["distance_to_retrain"]["test"]}
    figures |= {"seconds": folder.forgotten.result.seconds}
    figures |= {"removed": folder.forgotten.graph.num_interactions - folder.train.num_interactions}
    for name, value in figures.items():
        assert record.data.metrics[name] == pytest.approx(value), name
    params = {
        "method": "ifru",
        "model.name": "lightgcn",
        "model.dim": "4",
        "settings.epochs": "2",
        "settings.seed": "7",
    }
    params |= {"options.max_steps": "3", "request.ids.user": "2", "objective.negatives": "4", "data.users": "30"}
    assert params.items() <= record.data.params.items()
    tags = {"graphunlearn.accepted": str(folder.forgotten.result.accepted), "graphunlearn.version": gu.__version__}
    assert tags.items() <= record.data.tags.items()
    assert {file.path for file in client.list_artifacts(number)} == {"model", "report.html", "report.json"}
    got = client.download_artifacts(number, "report.html", str(tmp_path))
    assert Path(got).read_bytes() == (run / "report.html").read_bytes()


def test_nothing_that_is_recorded_names_who_was_forgotten(server, run, tmp_path):
    client = client_of(server)
    number = log_to_mlflow(run, server, experiment="erasures")
    data = client.get_run(number).data
    said = json.dumps([data.params, data.tags, data.metrics])
    client.download_artifacts(number, "", str(tmp_path))
    said += "".join(path.read_text() for path in tmp_path.rglob("*.*") if path.suffix in (".json", ".html"))
    assert not any(f'"{name}"' in said or f">{name}<" in said for name in ("u3", "u11"))
    assert not list(tmp_path.rglob("*.safetensors"))
    before = Run.load(run).forgotten
    assert fingerprint(before.original) not in said
    assert before.graph.fingerprint() not in said


def test_a_report_that_names_them_is_refused_before_anything_is_recorded(server, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "b")
    report = json.loads((copy / "report.json").read_text())
    (copy / "report.json").write_text(json.dumps(report | {"command": "forget --users u11"}))
    with pytest.raises(ValueError, match="'report' must not name what was forgotten"):
        log_to_mlflow(copy, server, experiment="refused")
    assert client_of(server).get_experiment_by_name("refused") is None


def test_which_model_was_in_production_when(server, run):
    first, second = Run.load(run.with_name("a")), Run.load(run)
    days = [NOON + timedelta(days=n) for n in range(5)]
    ids = [log_to_mlflow(first, server, registered_model="shop", served_from=days[1])]
    assert in_production(server, "shop")["fingerprint"] == fingerprint(first.model)
    ids += [log_to_mlflow(run, server, registered_model="shop", served_from=days[3])]
    prints = [None, fingerprint(second.model)]  # that of the first confirms guesses of what was forgotten
    assert in_production(server, "shop", days[0]) is None
    for when, at in ((days[1], 0), (days[2], 0), (days[3], 1), (days[4], 1), (None, 1)):
        found = in_production(server, "shop", when)
        assert (found["run_id"], found["fingerprint"]) == (ids[at], prints[at])
    assert in_production(server, "shop", days[2])["served_until"] == days[3].isoformat()
    assert in_production(server, "shop", days[4])["served_until"] is None
    with pytest.raises(ValueError, match="'served_from' must be after the start of the version that serves"):
        log_to_mlflow(run, server, registered_model="shop", served_from=days[2])
    with pytest.raises(ValueError, match="'when' must have a time zone"):
        in_production(server, "shop", datetime(2026, 3, 1))


def test_a_result_alone_can_be_recorded(server, run):
    result = Run.load(run).forgotten.result
    data = client_of(server).get_run(log_to_mlflow(result, server)).data
    assert data.params["method"] == "ifru"
    assert data.metrics["kept"] == result.graph.num_interactions


def test_a_failure_on_the_way_marks_the_run_as_failed(server, run, monkeypatch):
    from mlflow import MlflowClient

    def fail(*_args, **_keywords):
        raise OSError("the disk of artefacts is full")

    monkeypatch.setattr(MlflowClient, "log_artifact", fail)
    with pytest.raises(OSError, match="full"):
        log_to_mlflow(run, server, experiment="failures", registered_model="half")
    client = client_of(server)
    (record,) = client.search_runs([client.get_experiment_by_name("failures").experiment_id])
    assert record.info.status == "FAILED"
    assert in_production(server, "half") is None


def test_a_server_that_is_not_there_is_one_sentence(server, run):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}", "http://", "warp://x"):
        with pytest.raises(ValueError, match="'tracking_uri' must be the address of an MLflow server"):
            log_to_mlflow(run, uri)


def test_a_name_that_is_no_name_is_one_sentence(run):
    pytest.importorskip("mlflow", reason=EXTRA)
    for name in ("", "it's", "a/b"):
        with pytest.raises(ValueError, match="'registered_model' must be a name without quotes"):
            log_to_mlflow(run, "http://127.0.0.1:9", registered_model=name)


def test_a_broken_report_is_one_sentence(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "b")
    for text in ("", "[]", "{}", '{"methods": []}', "[" * 100_000):
        (copy / "report.json").write_text(text)
        with pytest.raises(ValueError, match="'report' must be a folder with the whole report of an audit"):
            log_to_mlflow(copy, "http://127.0.0.1:9")
    (copy / "report.json").unlink()
    with pytest.raises(ValueError, match="No such file"):
        log_to_mlflow(copy, "http://127.0.0.1:9", report=copy)


def test_mlflow_that_is_not_there_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"this needs mlflow: python -m pip install 'graphunlearn\[mlflow\]'"):
        log_to_mlflow(run, "http://127.0.0.1:9")
