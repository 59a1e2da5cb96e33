"""The leaderboard: stores, kits, folders of weights, and the rows, on a small graph."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.errors import ArgumentError, FileError
from graphunlearn.eval.board import Track, load_store, make_store, read_submission, rows_of, score, track_of, write_kit
from graphunlearn.eval.board import store as board_store
from graphunlearn.eval.board.scoring import ordered
from graphunlearn.eval.board.store import FIRST, TRACK, name_of
from graphunlearn.eval.machine import environment
from graphunlearn.eval.scenarios.interactions import removal
from graphunlearn.nn import FitSettings
from graphunlearn.nn.training.anew import train_anew
from graphunlearn.operators import UnlinkRedraw

pytestmark = pytest.mark.filterwarnings("ignore:training ended with")

SMALL = Track("ml-100k", "user", dim=4, layers=1, originals=3, references=4, settings=FitSettings(epochs=3))
GRAPH = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


@pytest.fixture(scope="module")
def case():
    return removal(GRAPH, "user", share=0.05)


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make_store(SMALL, case, folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def store(case, folder):
    return load_store(SMALL, case, folder)


@pytest.fixture
def kit(case, store, tmp_path):
    write_kit(SMALL, case, store, tmp_path / "kit")
    return tmp_path / "kit"


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_originals_are_trained_as_by_the_trainer(case, store):
    for seed, model in enumerate(store.originals):
        direct = SMALL.build(case)
        settings = replace(SMALL.settings, seed=seed)
        given = {"validation": case.validation, "objective": gu.BPR(), "settings": settings}
        train_anew(direct, case.train, **given, progress=False)
        assert same(model, direct)


def test_retrained_models_are_those_of_retrain(case, store):
    """A retrained model that was not healthy has another seed than its place, so that its own record tells its seed."""
    for result in store.references:
        settings = replace(SMALL.settings, seed=result.log["settings"]["seed"])
        again = gu.Retrain(objective=gu.BPR(), validation=case.validation, settings=settings)
        assert same(again.unlearn(store.originals[0], case.train, case.request).model, result.model)
    assert len({result.log["settings"]["seed"] for result in store.references}) == SMALL.references
    assert all(result.log["settings"]["seed"] >= FIRST for result in store.references)
    assert store.same_machine


def test_a_store_that_lacks_models_is_completed_as_it_was(case, folder, store, tmp_path):
    for path in folder.iterdir():
        if path.name not in ("original-01.safetensors", "retrained-02.safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileError, match=r"2 missing models, the first of which is original-01"):
        load_store(SMALL, case, tmp_path)
    again = make_store(SMALL, case, tmp_path, progress=False)
    assert all(map(same, again.originals, store.originals))
    assert all(same(a.model, b.model) for a, b in zip(again.references, store.references, strict=True))
    assert all(map(same, load_store(SMALL, case, tmp_path).originals, store.originals))


def test_untouched_weights_score_as_the_original_and_results_as_their_operator(case, store):
    operator = UnlinkRedraw()
    corrected = [operator.unlearn(model, case.train, case.request).model for model in store.originals]
    rows = {r["method"]: r for r in rows_of(score(SMALL, case, store, [operator], {"mine": corrected}).report)}
    figures = [name for name in rows["mine"] if name.startswith(("klom", "dp_", "recall", "ndcg", "leaks", "verdict"))]
    assert len(figures) >= 8
    assert [rows["mine"][name] for name in figures] == [rows["unlink-redraw"][name] for name in figures]
    assert rows["mine"]["cpu_seconds"] is rows["mine"]["peak_memory_mb"] is rows["mine"]["speedup_vs_retrain"] is None
    assert rows["unlink-redraw"]["cpu_seconds"] > 0


def test_klom_of_a_row_is_that_of_margins_normal_by_pair(case, store):
    """A naive loop over the forgotten pairs; the margin of a pair is its logit less the log-sum-exp of the others'."""
    report = score(SMALL, case, store, [gu.Unlink()]).report
    found = next(row for row in rows_of(report) if row["method"] == "original")["klom_forget"]
    _, forgotten = case.train.split(case.request)
    users, items = forgotten.pairs

    def margins(model, graph):
        encoded = gu.encode(model, graph)
        logits = encoded.queries.double() @ encoded.items.double().T
        out = []
        for user, item in zip(users.tolist(), items.tolist()):
            others = torch.cat([logits[user, :item], logits[user, item + 1 :]])
            out.append(logits[user, item] - torch.logsumexp(others, 0))
        return torch.stack(out)

    u = torch.stack([margins(model, case.train) for model in store.originals])
    r = torch.stack([margins(result.model, result.graph) for result in store.references])
    total = 0.0
    for k in range(u.size(1)):
        mu, su, mr, sr = u[:, k].mean(), u[:, k].std(), r[:, k].mean(), r[:, k].std()
        total += float(torch.log(sr / su) + (su**2 + (mu - mr) ** 2) / (2 * sr**2) - 0.5)
    assert found == pytest.approx(total / u.size(1), rel=1e-3)


def test_rows_begin_with_retraining_and_are_ordered_by_verdict_and_the_greater_klom(case, store):
    rows = rows_of(score(SMALL, case, store, [gu.Unlink()]).report)
    assert rows[0]["method"] == "retrain"
    order = [(row["verdict"] != "like", row["verdict"] != "undecided") for row in rows[1:]]
    worst = [max(row["klom_forget"], row["klom_retain"]) for row in rows[1:]]
    assert list(zip(order, worst)) == sorted(zip(order, worst))
    assert {row["method"] for row in rows} == {"retrain", "original", "unlink", "unlink-redraw"}


def test_a_kit_has_the_pairs_and_the_weights(case, kit, store):
    retained, forgotten = case.train.split(case.request)
    for name, graph in (("kept", retained), ("forgotten", forgotten), ("validation", case.validation)):
        lines = (kit / f"{name}.csv").read_text().splitlines()
        assert lines[0] == "user,item"
        assert [tuple(map(int, line.split(","))) for line in lines[1:]] == list(map(tuple, graph.pairs.t().tolist()))
    assert all(map(same, read_submission(SMALL, case, kit), store.originals))


def spoil(kit, how):
    path = kit / "original-01.safetensors"
    state = load_file(path)
    name = "embedding.weight"
    if how == "nan":
        save_file({**state, name: torch.full_like(state[name], torch.nan)}, path)
    elif how == "shape":
        save_file({**state, name: state[name][:-1]}, path)
    elif how == "name":
        save_file({f"{key}.x": value for key, value in state.items()}, path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif how == "missing":
        path.unlink()
    elif how == "no track":
        (kit / TRACK).unlink()
    elif how == "broken track":
        (kit / TRACK).write_text("{")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("nan", r"'weights' must hold finite numbers in 'original-01.safetensors' \(got others in embedding.weight\)"),
        ("shape", r"'weights' must hold a 'original-01.safetensors' with the parameters .*\(100, 4\)"),
        ("name", r"'weights' must hold a 'original-01.safetensors' with the parameters"),
        ("cut", r"'weights' must hold a whole 'original-01.safetensors'"),
        ("missing", r"'weights' must hold 3 files of weights, one per original \(got .* without original-01"),
        ("no track", r"'weights' must be a folder with track.json"),
        ("broken track", r"'weights' must hold a whole track.json"),
    ],
)
def test_broken_folders_of_weights_are_refused(case, kit, how, sentence):
    spoil(kit, how)
    with pytest.raises(ArgumentError, match=sentence):
        read_submission(SMALL, case, kit)


def test_plain_safetensors_files_of_another_program_are_read(case, kit, store):
    path = kit / "original-01.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    models = read_submission(SMALL, case, kit)
    for (name, value), before in zip(models[1].state_dict().items(), store.originals[1].state_dict().values()):
        assert torch.equal(value, before + 1), name


def test_folders_of_another_split_or_track_are_refused(case, folder, kit):
    other = removal(GRAPH, "user", share=0.05, seed=1)
    with pytest.raises(
        ArgumentError, match=r"'store' must be of the same data split \(got .* with another train, kept"
    ):
        load_store(SMALL, other, folder)
    with pytest.raises(ArgumentError, match="'weights' must be of the same data split"):
        read_submission(SMALL, other, kit)
    with pytest.raises(ArgumentError, match=r"'store' must be of the same track \(got .* with another level, data"):
        load_store(replace(SMALL, level="interaction"), removal(GRAPH, "interaction", share=0.05), folder)
    with pytest.raises(ArgumentError, match=r"'store' must be of the same track \(got .* with another dim"):
        make_store(replace(SMALL, dim=8), case, folder)


def test_a_reference_without_its_record_is_refused(case, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "retrained-00.safetensors").write_bytes((folder / "original-00.safetensors").read_bytes())
    with pytest.raises(ArgumentError, match=r"hold a retrained model with its record .* \(got one without cpu_seconds"):
        load_store(SMALL, case, tmp_path)


def test_scores_need_something_to_score_with_one_model_per_original(case, store):
    with pytest.raises(ArgumentError, match="at least one operator or folder of weights"):
        score(SMALL, case, store)
    with pytest.raises(ArgumentError, match=r"different names.*unlink twice"):
        score(SMALL, case, store, [gu.Unlink()], {"unlink": store.originals})
    with pytest.raises(ArgumentError, match=r"hold 3 models \(got 2 of mine"):
        score(SMALL, case, store, weights={"mine": store.originals[:2]})
    for name in ("original", "retrain", "unlink", "unlink-redraw"):  # rows that every report has
        with pytest.raises(ArgumentError, match=rf"'weights' must have another name than .* \(got {name}\)"):
            score(SMALL, case, store, weights={name: store.originals})


def test_tracks_are_named():
    assert track_of("lastfm-edges") == Track("lastfm", "interaction")
    with pytest.raises(ArgumentError, match="must be one of ml-100k-users, ml-100k-edges, lastfm-users, lastfm-edges"):
        track_of("ml-1m")


@pytest.fixture
def small(monkeypatch, folder):
    """The command on the small track."""
    monkeypatch.setattr("graphunlearn.eval.board.track.load", lambda name, root: GRAPH)
    monkeypatch.setitem(gu.eval.board.track.TRACKS, "ml-100k-users", SMALL)
    return ["leaderboard", "ml-100k-users", "--store", str(folder)]


def test_the_command_makes_scores_and_hands_out(small, tmp_path, capsys):
    assert main([*small, "--make"]) == 0
    assert "3 originals and 4 retrained models" in capsys.readouterr().out
    kit, out = tmp_path / "kit", tmp_path / "board"
    assert main([*small, "--kit", str(kit)]) == 0
    assert f"--weights {kit}" in capsys.readouterr().out
    assert main([*small, "--methods", "finetune", "unlink", "--weights", str(kit), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[1]: line.split() for line in lines[2:7]}
    assert lines[1].split()[0] == "retrain"
    assert {"finetune", "unlink", "kit", "unlink-redraw"} <= set(rows)
    assert sorted(int(row[0]) for row in rows.values() if row[0].isdigit()) == [1, 2, 3, 4]
    assert (out / "report.json").exists()
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "'--methods' must name methods (got none); "),
        (["--methods", "retrain"], "'--methods' must name methods other than retrain"),
        (["--methods", "cau"], "'--methods' must be one for models of users and items"),
        (["--kit", "x", "--methods", "unlink"], "'--kit' must be left out where something is scored"),
        (["--store", "nowhere", "--methods", "unlink"], "'--store' must be a folder with track.json"),
        (["--weights", "nowhere"], "'--weights' must be a folder with track.json"),
    ],
)
def test_the_command_refuses(small, words, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([*small, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_track_file_with_another_format_is_of_another_track(case, kit):
    more = {"track": {**SMALL.facts(case), "also": 1}}
    (kit / TRACK).write_bytes(sealed_json({"format": 1} | more))
    with pytest.raises(ArgumentError, match=r"must be of the same track \(got .* with another also\)"):
        read_submission(SMALL, case, kit)
    for content in ({}, {"track": []}, {"track": None}, {"track": {**SMALL.facts(case), "data": 3}}):
        (kit / TRACK).write_bytes(sealed_json({"format": 1} | content))
        with pytest.raises(ArgumentError, match="must be of the same"):
            read_submission(SMALL, case, kit)


def test_a_kit_is_replaced_only_when_asked(small, tmp_path, capsys):
    kit = tmp_path / "kit"
    assert main([*small, "--kit", str(kit)]) == 0
    assert main([*small, "--kit", str(kit)]) == 2
    assert "'--kit' must be a new folder" in capsys.readouterr().err
    assert main([*small, "--kit", str(kit), "--overwrite"]) == 0
    (kit / "mine.txt").write_text("kept")
    assert main([*small, "--kit", str(kit), "--overwrite"]) == 2
    assert (kit / "mine.txt").read_text() == "kept"


def test_a_model_that_is_told_apart_comes_after_one_that_is_not():
    klom = [
        ("a", "under", 0.1),
        ("b", "like", 0.5),
        ("c", "undecided", 0.2),
        ("d", "like", 0.4),
        ("retrain", "like", 9.0),
    ]
    rows = [{"method": m, "verdict": v, "klom_forget": k, "klom_retain": 0.3} for m, v, k in klom]
    assert [row["method"] for row in ordered([*rows, {"method": "e", "verdict": "failed"}])] == [
        *("retrain", "d", "b", "c", "a", "e")
    ]


def test_rows_whose_klom_is_not_known_come_last_within_their_verdict():
    rows = [
        {"method": name, "verdict": "like", "klom_forget": forget, "klom_retain": retain}
        for name, forget, retain in (("a", float("nan"), 0.1), ("b", 0.3, 0.2), ("c", None, 0.1), ("d", 0.1, 0.2))
    ]
    for order in (rows, rows[::-1]):
        assert [row["method"] for row in ordered(order)][:2] == ["d", "b"]


def elsewhere(device):
    return environment(device) | {"cpu": "another"}


@pytest.mark.parametrize("number", [0, 2])
def test_a_store_made_in_part_elsewhere_stays_so(case, folder, store, number, tmp_path, monkeypatch):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / name_of("retrained", number)
    result = store.references[number]
    told = replace(result, log={**result.log, "health": "It was not healthy."})  # as an earlier call left it
    with monkeypatch.context() as there:
        there.setattr(board_store, "environment", elsewhere)
        board_store._write_result(path, told)
    assert store.same_machine and not load_store(SMALL, case, tmp_path).same_machine
    before = path.read_bytes()
    again = make_store(SMALL, case, tmp_path, progress=False)
    assert not again.same_machine and path.read_bytes() == before


def test_a_sick_model_that_stays_keeps_the_machine_it_was_trained_on(case, folder, store, tmp_path, monkeypatch):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with monkeypatch.context() as there:
        there.setattr(board_store, "environment", elsewhere)
        board_store._write_result(tmp_path / name_of("retrained", 1), store.references[1])

    def found_sick(references, train):
        references[1].log["health"] = "It is not healthy, nor is another."

    monkeypatch.setattr(board_store, "replace_sick", found_sick)
    assert not make_store(SMALL, case, tmp_path, progress=False).same_machine
    assert load_store(SMALL, case, tmp_path).references[1].log["health"] == "It is not healthy, nor is another."
    assert not load_store(SMALL, case, tmp_path).same_machine


def test_a_record_that_names_nothing_is_refused(case, kit, store):
    path, state = kit / name_of("original", 1), store.originals[1].state_dict()
    for record in ("[1]", "3", "[" * 100_000):
        save_file({name: value.clone() for name, value in state.items()}, path, {"record": record})
        with pytest.raises(ArgumentError, match=r"'weights' must hold a whole 'original-01\.safetensors'"):
            read_submission(SMALL, case, kit)
