"""Exported folders: what is in them, what must never be, and that they are written whole or not at all."""

import errno
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, load_model
from session_toys import random_sessions
from torch import nn
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json, sealed_tensors
from graphunlearn.nn.identity import fingerprint, keyed

KEY = bytes(range(32))
FILES = ["README.md", "config.json", "model.safetensors", "unlearning.json"]


class Towers(nn.Module):
    """A class of no library, with tied weights, a buffer, and a number that is no tensor's worth of anything."""

    def __init__(self, num_users, num_items):
        super().__init__()
        self.user_table, self.item_table = nn.Embedding(num_users, 4), nn.Embedding(num_items, 4)
        self.one = nn.Linear(4, 4, bias=False)
        self.other = nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("turned", torch.randn(3, 2).t())


@gu.encode.register
def _(model: Towers, graph):
    return model.other(model.one(model.user_table.weight)), model.item_table.weight


@pytest.fixture
def graph():
    names = {"user_ids": [f"customer-{n:03d}" for n in range(20)], "item_ids": [f"article-{n:03d}" for n in range(15)]}
    pairs = gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0).pairs
    return gu.InteractionGraph.from_edges(pairs, 20, 15, **names)


@pytest.fixture
def request_(graph):
    pair = graph.pairs[:, graph.pairs[0] == 7][:, 0].tolist()
    single = (graph.user_ids[pair[0]], graph.item_ids[pair[1]])
    return gu.ForgetRequest("user", ["customer-003", "customer-011"]) | gu.ForgetRequest("interaction", [single])


@pytest.fixture
def model(graph):
    return LightGCN(graph.num_nodes, 4, 2)


@pytest.fixture
def result(model, graph, request_):
    return gu.Calibrate().unlearn(model, graph, request_)


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


# ---- what is in it


def test_everything_is_told(tmp_path, model, graph, request_, result):
    unlearner = gu.Calibrate(objective=gu.BPR(negatives=2))
    audit = {"membership": {"auroc": 0.51}}
    made = gu.export(result, tmp_path / "a", model=model, graph=graph, unlearner=unlearner, audit=audit, key=KEY)
    assert made.folder == tmp_path / "a"
    assert made.key == KEY
    assert sorted(path.name for path in made.folder.iterdir()) == FILES
    facts = read(made.folder, "unlearning.json")
    assert facts["request"] == {
        "ids": {"user": 2, "interaction": 1},
        "removed": int(request_.mask(graph).sum()),
        "kept": result.graph.num_interactions,
        "unit": "interactions",
        "digest": request_.digest(KEY),
        "digest_is": "HMAC-SHA256 with a key that is kept apart",
    }
    before = keyed(fingerprint(model), KEY)
    assert facts["model"] == {"before_keyed": before, "after": fingerprint(result.model)}
    assert fingerprint(model) not in (made.folder / "unlearning.json").read_text()  # training again would confirm ids
    assert facts["graph"]["after_keyed"] == keyed(result.graph.fingerprint(), KEY)
    assert result.graph.fingerprint() not in (made.folder / "unlearning.json").read_text()  # ids could be tried out
    assert facts["audit"] == audit
    assert facts["method"]["name"] == "calibrate"
    assert facts["method"]["options"]["objective"] == {"class": "BPR", "weight_decay": 1e-3, "negatives": 2, "seed": 0}
    assert facts["versions"]["graphunlearn"] == gu.__version__
    config = read(made.folder, "config.json")
    assert config["architectures"] == ["LightGCN"]
    assert config["graph"] == {
        "kind": "interactions",
        "num_users": 20,
        "num_items": 15,
        "num_interactions": result.graph.num_interactions,
    }
    assert config["tensors"]["embedding.weight"] == {"shape": [35, 4], "dtype": "float32"}


def test_the_weights_are_read_by_safetensors_alone(tmp_path, model, result):
    folder = gu.export(result, tmp_path / "a").folder
    tensors = load_file(folder / "model.safetensors")
    for name, value in result.model.state_dict().items():
        assert torch.equal(tensors[name], value)
    load_model(model, folder / "model.safetensors")
    assert torch.equal(model.embedding.weight, result.model.embedding.weight)


def test_the_card_has_front_matter_and_says_what_it_does_not_prove(tmp_path, result, graph):
    folder = gu.export(result, tmp_path / "a", graph=graph).folder
    card = (folder / "README.md").read_text()
    front = re.match(r"---\n(.*?)\n---\n", card, re.S).group(1).splitlines()
    assert front[0] == "library_name: graphunlearn"
    assert front[1] == "tags:"
    assert all(re.fullmatch(r"- [a-z-]+", line) for line in front[2:])
    assert "- machine-unlearning" in front
    for part in ("not a certificate", "2 users, 1 interaction", "No audit came with this folder", "`LightGCN`"):
        assert part in card
    told = gu.export(result, tmp_path / "b", audit={"ks": 0.125}).folder
    assert '"ks": 0.125' in (told / "README.md").read_text()


def test_no_forgotten_id_is_anywhere(tmp_path, model, graph, request_, result):
    unlearner = gu.Calibrate()
    folder = gu.export(result, tmp_path / "a", model=model, graph=graph, unlearner=unlearner, audit={"ks": 0.1}).folder
    content = b"".join(path.read_bytes() + path.name.encode() for path in folder.iterdir())
    ids = {"customer-003", "customer-011", *request_.parts[1].index[0]}
    assert len(ids) == 4
    for name in ids:
        assert name.encode() not in content
        assert name.encode("utf-16-le") not in content
    plain = [request_.fingerprint(), graph.fingerprint()]  # which would tell whoever guesses well
    for text in plain:
        assert text.encode() not in content


def test_no_forgotten_session_is_anywhere(tmp_path):
    rows = random_sessions(30, 12, seed=1)
    sessions = gu.SessionGraph.from_sequences(
        rows,
        num_items=12,
        session_ids=[f"visit-{n:03d}" for n in range(30)],
        item_ids=[f"sku-{n}-x" for n in range(12)],
    )
    model = gu.nn.GRU4Rec(12, 4)
    long = next(n for n, row in enumerate(rows) if len(row) > 4)
    request = gu.ForgetRequest("click", [(f"visit-{long:03d}", 2)]) | gu.ForgetRequest("item", ["sku-3-x"])
    result = gu.Unlink().unlearn(model, sessions, request)
    folder = gu.export(result, tmp_path / "a", model=model, graph=sessions, unlearner=gu.Unlink()).folder
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for name in (f"visit-{long:03d}", "sku-3-x"):
        assert name.encode() not in content
    facts = read(folder, "unlearning.json")
    assert facts["request"]["ids"] == {"click": 1, "item": 1}
    assert facts["request"]["unit"] == "clicks"
    assert facts["request"]["removed"] == int(request.mask(sessions).sum())
    assert read(folder, "config.json")["graph"]["num_sessions"] == result.graph.num_sessions
    gu.load_export(gu.nn.GRU4Rec(12, 4), folder)


def test_what_was_not_given_is_not_told(tmp_path, result):
    facts = read(gu.export(result, tmp_path / "a").folder, "unlearning.json")
    assert facts["request"]["removed"] is None
    assert facts["model"]["before_keyed"] is None
    assert facts["graph"]["before_keyed"] is None
    assert facts["method"]["options"] is None
    assert "not recorded" in (tmp_path / "a" / "README.md").read_text()


def test_the_model_that_a_method_started_from_counts_as_the_one_before(tmp_path, model, result):
    other = LightGCN(35, 4, 2)
    facts = read(gu.export(replace(result, original=other), tmp_path / "a", key=KEY).folder, "unlearning.json")
    assert facts["model"]["before_keyed"] == keyed(fingerprint(other), KEY)


def test_a_key_is_drawn_where_none_is_given_and_is_not_shown(tmp_path, request_, result):
    one, two = (gu.export(result, tmp_path / name) for name in "ab")
    assert one.key != two.key
    assert len(one.key) == 32
    assert read(one.folder, "unlearning.json")["request"]["digest"] == request_.digest(one.key)
    assert repr(one.key) not in repr(one)
    assert all(one.key not in path.read_bytes() for path in one.folder.iterdir())


def test_options_name_data_and_models_by_their_class_alone(tmp_path, graph, model, request_):
    unlearner = gu.UnlearnRec(validation=graph, settings=gu.nn.FitSettings(epochs=2))
    result = replace(gu.Unlink().unlearn(model, graph, request_), method="unlearnrec")
    options = read(gu.export(result, tmp_path / "a", unlearner=unlearner).folder, "unlearning.json")["method"][
        "options"
    ]
    assert options["validation"] == "InteractionGraph"
    assert options["settings"]["epochs"] == 2
    assert "preparation" not in options


# ---- back again


def test_a_model_is_loaded(tmp_path, result):
    folder = gu.export(result, tmp_path / "a").folder
    other = LightGCN(35, 4, 2)
    facts = read(folder, "unlearning.json")
    del facts["sha256"]
    assert gu.load_export(other, folder) == facts
    assert fingerprint(other) == fingerprint(result.model)


def test_a_class_of_no_library_comes_and_goes(tmp_path, graph, request_):
    model = Towers(20, 15)
    result = gu.IFRU().unlearn(model, graph, request_)
    folder = gu.export(result, tmp_path / "a", model=model, graph=graph).folder
    other = Towers(20, 15)
    gu.load_export(other, folder)
    for name, value in result.model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert other.one.weight is other.other.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_are_kept(tmp_path, result, dtype):
    result = replace(result, model=result.model.to(dtype))
    folder = gu.export(result, tmp_path / "a").folder
    other = LightGCN(35, 4, 2).to(dtype)
    gu.load_export(other, folder)
    assert torch.equal(other.embedding.weight, result.model.embedding.weight)


def tampered(folder, change):
    """Change the weights, and the hash in their file as well."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    (folder / "model.safetensors").write_bytes(sealed_tensors(tensors))


def edited(folder, name, **changes):
    """Change a file, and the hash in it as well."""
    (folder / name).write_bytes(sealed_json(read(folder, name) | changes))


BROKEN = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()], "No such file"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "No such file"),
    "broken weights": (lambda f: (f / "model.safetensors").write_bytes(b"broken"), "must be a whole export"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 300), "must be a whole export"),
    "other weights": (
        lambda f: tampered(f, lambda t: t["embedding.weight"].add_(1)),
        "the fingerprint of model.safetensors differs from the one in unlearning.json",
    ),
    "broken JSON": (lambda f: (f / "unlearning.json").write_text("{"), "must be a whole export"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "must be a whole export"),
    "lacking JSON": (lambda f: (f / "unlearning.json").write_bytes(sealed_json({})), "it lacks 'model'"),
    "no hash": (lambda f: (f / "unlearning.json").write_text("{}"), r"unlearning\.json is broken: it lacks the hash"),
    "another format": (lambda f: edited(f, "config.json", format=99), "its format is 99, and this version reads 2"),
    "no class": (lambda f: edited(f, "config.json", architectures=[]), "must be a whole export"),
}


@pytest.mark.parametrize("why", list(BROKEN))
def test_a_broken_export_changes_nothing(tmp_path, result, why):
    folder = gu.export(result, tmp_path / "a").folder
    spoil, message = BROKEN[why]
    spoil(folder)
    other = LightGCN(35, 4, 2)
    before = fingerprint(other)
    with pytest.raises(ValueError, match=message) as caught:
        gu.load_export(other, folder)
    assert "\n" not in str(caught.value)
    assert fingerprint(other) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gu.nn.MatrixFactorization(35, 4), r"of the class of the export, LightGCN \(got MatrixFactorization\)"),
        (lambda: LightGCN(36, 4, 2), r"'embedding\.weight' is float32 \[35, 4\] \(got float32 \[36, 4\]\)"),
        (lambda: LightGCN(35, 4, 2).double(), r"'alpha' is float32 \[3\] \(got float64 \[3\]\)"),
    ],
)
def test_a_model_that_does_not_fit_is_left_alone(tmp_path, result, make, message):
    folder, other = gu.export(result, tmp_path / "a").folder, make()
    before = fingerprint(other)
    with pytest.raises(ValueError, match=message):
        gu.load_export(other, folder)
    assert fingerprint(other) == before


def test_tensors_that_one_side_lacks_are_named(tmp_path, graph, request_):
    result = gu.Unlink().unlearn(Towers(20, 15), graph, request_)
    folder, other = gu.export(result, tmp_path / "a").folder, Towers(20, 15)
    del other.steps
    with pytest.raises(ValueError, match=r"'steps' is int64 \[\] \(got none\)"):
        gu.load_export(other, folder)
    other = Towers(20, 15)
    other.register_buffer("extra", torch.zeros(2))
    with pytest.raises(ValueError, match=r"'extra' is none \(got float32 \[2\]\)"):
        gu.load_export(other, folder)


# ---- whole or not at all


def test_a_folder_is_replaced_only_when_told(tmp_path, result):
    gu.export(result, tmp_path / "a", key=KEY)
    held = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match=r"'folder' must be a new folder .*exists\); overwrite=True replaces it"):
        gu.export(result, tmp_path / "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == held
    gu.export(result, tmp_path / "a", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex'"):
        gu.export(result, tmp_path / "a", overwrite=True)


def test_a_folder_in_it_is_never_replaced(tmp_path, result):
    (tmp_path / "a" / "README.md").mkdir(parents=True)
    (tmp_path / "a" / "README.md" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds 'README\.md'"):
        gu.export(result, tmp_path / "a", overwrite=True)
    assert (tmp_path / "a" / "README.md" / "thesis.tex").exists()


def test_a_number_in_a_text_is_not_taken_for_an_id(tmp_path, model):
    pairs = gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0).pairs
    graph = gu.InteractionGraph.from_edges(pairs, 20, 15)
    result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["10"]))
    assert gu.export(result, tmp_path / "a", audit={"recall@10": 0.2}).folder.exists()


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_leaves_no_half_folder(tmp_path, monkeypatch, result, file, existing):
    if existing:
        gu.export(result, tmp_path / "a", key=KEY)
    held = {path.name: path.read_bytes() for path in tmp_path.glob("a/*")}
    write = Path.write_bytes

    def fail(self, data):
        if self.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left on device"):
        gu.export(result, tmp_path / "a", overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if existing else [])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("a/*")} == held


class Sparse(Towers):
    """What cannot be written: its graph is in a sparse buffer."""

    def __init__(self, num_users, num_items):
        super().__init__(num_users, num_items)
        self.register_buffer("graph", torch.eye(3).to_sparse())


class Stateful(Towers):
    """What cannot be written either: it keeps more than tensors."""

    def get_extra_state(self):
        return {"users": ["customer-003"]}


@dataclass(kw_only=True)
class Telling(gu.Unlearner):
    """Keeps what it should not among its options."""

    name: ClassVar[str] = "telling"
    note: object = None

    def _unlearn(self, model, graph, retained, request):
        return {}


gu.operators.registry.pop("telling")  # the suites of all methods are not meant for it


def test_what_must_not_be_written_is_refused(tmp_path, model, graph, request_, result):
    other = gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=4, seed=1)
    sparse = replace(result, model=Sparse(20, 15))
    stateful = replace(result, model=Stateful(20, 15))
    telling = gu.Unlink().unlearn(model, graph, request_)
    internal = gu.Unlink().unlearn(model, graph, gu.ForgetRequest.internal("user", torch.tensor([4])))
    cases = [
        (result, {"key": b"short"}, r"'key' must hold at least 16 bytes \(got 5\)"),
        (result, {"unlearner": gu.IFRU()}, r"'unlearner' must be the method of 'result', calibrate \(got ifru\)"),
        (result, {"graph": result.graph}, "'index' must hold|'request' must match"),
        (result, {"graph": other}, "'index' must hold users of the graph"),
        (result, {"audit": {"x": {1, 2}}}, "'audit' must be as JSON holds it"),
        (result, {"audit": {"ks": float("nan")}}, "'audit' must be as JSON holds it"),
        (result, {"audit": {"customer-003": 0.5}}, "'audit' must not name what was forgotten"),
        (result, {"audit": {"who": ["customer-011"]}}, "'audit' must not name what was forgotten"),
        (result, {"audit": {"note": "before customer-011, and after"}}, "'audit' must not name what was forgotten"),
        (internal, {"audit": {"who": "customer-004"}}, "'audit' must not name what was forgotten"),
        (result, {"audit": [0.5]}, "'audit' must be as JSON holds it"),
        (stateful, {}, "'result' must hold a model of dense tensors"),
        (sparse, {}, "'result' must hold a model of dense tensors"),
        (
            replace(telling, method="telling"),
            {"unlearner": Telling(note={"who": ("customer-003",)})},
            "'options' must not name what was forgotten",
        ),
    ]
    for given, options, message in cases:
        with pytest.raises(ValueError, match=message):
            gu.export(given, tmp_path / "a", **options)
        assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_the_one_before_is_refused(tmp_path, graph, request_, result):
    smaller = graph.select(graph.pairs[0] != 15)
    with pytest.raises(
        ValueError,
        match="'graph' must be the graph before forgetting, from which the request gives the graph of 'result'",
    ):
        gu.export(result, tmp_path / "a", graph=smaller)


def test_weights_that_are_no_numbers_are_refused(tmp_path, result):
    folder = gu.export(result, tmp_path / "a").folder
    tampered(folder, lambda tensors: tensors["embedding.weight"][3].fill_(torch.nan))
    weights = load_file(folder / "model.safetensors")
    facts = read(folder, "unlearning.json")
    edited(folder, "unlearning.json", model=facts["model"] | {"after": fingerprint(weights)})
    other = LightGCN(35, 4, 2)
    before = fingerprint(other)
    with pytest.raises(ValueError, match=r"4 of 140 values of 'embedding\.weight' are not finite"):
        gu.load_export(other, folder)
    assert fingerprint(other) == before


@pytest.mark.parametrize("name", ["config.json", "unlearning.json", "model.safetensors"])
def test_a_changed_byte_anywhere_is_one_sentence(name, tmp_path, result):
    folder = gu.export(result, tmp_path / "a").folder
    data = (folder / name).read_bytes()
    for place in range(0, len(data), max(1, len(data) // 200)):
        (folder / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="'folder' must be a whole export") as caught:
            gu.load_export(LightGCN(35, 4, 2), folder)
        assert len(str(caught.value).splitlines()) == 1
