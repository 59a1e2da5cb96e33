"""The export of a run on the command line, against the same export in Python, and what it refuses."""

import json
import shutil
import stat

import pytest
from safetensors.torch import load_file

import graphunlearn as gu
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.runs.run import Run

FILES = ["README.md", "config.json", "model.safetensors", "unlearning.json"]


def test_the_folder_holds_the_weights_and_proves_the_request_with_its_key(forgotten, tmp_path, parsed):
    out = tmp_path / "out" / "model"
    told = parsed("export", forgotten, "--out", out)
    assert told == {"run": str(forgotten), "out": str(out), "key": f"{out}.key", "audit": False}
    run = Run.load(forgotten)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert fingerprint(load_file(out / "model.safetensors")) == fingerprint(run.model)
    key = bytes.fromhex((tmp_path / "out" / "model.key").read_text())
    facts = json.loads((out / "unlearning.json").read_text())
    assert facts["request"]["digest"] == run.forgotten.result.request.digest(key)
    assert facts["graph"]["before_keyed"] == keyed(run.forgotten.graph.fingerprint(), key)
    assert facts["request"]["ids"] == {"user": 2, "item": 1}
    assert facts["method"]["name"] == "ifru"
    assert facts["method"]["options"]["damping"] == run.forgotten.options["damping"]
    before = keyed(fingerprint(run.forgotten.original), key)
    assert facts["model"] == {"before_keyed": before, "after": fingerprint(run.model)}


def test_a_new_key_is_readable_by_its_owner_only_and_an_old_one_is_used_again(forgotten, tmp_path, parsed):
    file = tmp_path / "keys" / "a.key"
    for name in ("one", "two"):
        parsed("export", forgotten, "--out", tmp_path / name, "--key", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    one, two = (json.loads((tmp_path / name / "unlearning.json").read_text()) for name in ("one", "two"))
    assert one["request"]["digest"] == two["request"]["digest"]


def test_no_file_names_who_was_forgotten(forgotten, tmp_path, parsed):
    out = tmp_path / "model"
    parsed("export", forgotten, "--out", out)
    for path in out.iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text()
            assert not any(f'"{name}"' in text for name in ("u1", "u2", "i3")), path.name


def test_the_figures_of_an_audit_come_along(forgotten, tmp_path, parsed):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    audited = parsed("audit", copy, "--retrain-seeds", 2)
    told = parsed("export", copy, "--out", tmp_path / "model")
    assert told["audit"] is True
    facts = json.loads((tmp_path / "model" / "unlearning.json").read_text())
    utility = next(entry["utility"] for entry in audited["methods"] if entry["name"] == "ifru")
    assert facts["audit"]["utility"] == utility
    assert "## Audit" in (tmp_path / "model" / "README.md").read_text()


def test_the_model_of_sessions_is_loaded_from_its_export(forgotten_sessions, tmp_path, parsed):
    parsed("export", forgotten_sessions, "--out", tmp_path / "model")
    run = Run.load(forgotten_sessions)
    fresh = run.spec.build(run.train)
    assert gu.load_export(fresh, tmp_path / "model")["request"]["ids"] == {"session": 2, "item": 1}
    assert fingerprint(fresh) == fingerprint(run.model)


def test_what_cannot_be_exported_is_refused_in_one_sentence(trained, forgotten, tmp_path, refused, call):
    out = tmp_path / "model"
    assert refused("export", trained, "--out", out).startswith("'run' must be a folder that 'forget' wrote")
    assert not (tmp_path / "model.key").exists()
    assert call("export", forgotten, "--out", out)[0] == 0
    assert refused("export", forgotten, "--out", out).endswith("'--overwrite' replaces it")
    assert call("export", forgotten, "--out", out, "--overwrite")[0] == 0
    (tmp_path / "bad.key").write_text("not a key")
    sentence = refused("export", forgotten, "--out", tmp_path / "x", "--key", tmp_path / "bad.key")
    assert sentence.startswith("'--key' must be a file of a key of at least 32 bytes, in hexadecimal")
    assert not (tmp_path / "x").exists()
    assert refused("export", tmp_path / "none", "--out", tmp_path / "x").startswith("'run' must be a run folder")


@pytest.mark.parametrize("text", ["{", "[]", '{"methods": []}'])
def test_a_broken_report_is_refused(forgotten, tmp_path, refused, text):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    (copy / "report.json").write_text(text)
    assert "which is broken" in refused("export", copy, "--out", tmp_path / "x")
