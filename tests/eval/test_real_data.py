"""The whole path on MovieLens 100K: flipped labels are forgotten as retraining forgets them."""

import graphunlearn as gu
from graphunlearn.eval import bench, flipped_labels


def test_flipped_labels_of_ml_100k(data_root):
    graph = gu.InteractionGraph.from_file(data_root / "ml-100k" / "ml-100k.inter")
    result = bench(lambda seed: flipped_labels(graph, seed=seed), [gu.IFRU(), gu.Unlink()], retrain_seeds=2)
    methods = {method["name"]: method for method in result.report["methods"]}
    ifru, unlink, retrain = (methods[name] for name in ("ifru", "unlink", "retrain"))
    # wider than the benchmark's 0.99–1.04 over five data seeds with five retrained models: this is one, with two
    assert 0.85 < ifru["forgetting"]["flipped_label_auc"]["gap_closed"] < 1.15
    assert abs(unlink["forgetting"]["flipped_label_auc"]["gap_closed"]) < 0.1
    distance = ifru["distance_to_retrain"]
    assert distance["forget"] < 1.35 * distance["noise_floor_forget"]
    assert distance["test"] < 1.15 * distance["noise_floor_test"]
    assert ifru["utility"]["auroc"] > retrain["utility"]["auroc"] - 0.01
