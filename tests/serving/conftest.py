"""A model before and after forgetting, of users and items and of sessions."""

from types import SimpleNamespace

import pytest
import torch
import torch_geometric

import graphunlearn as gu


@pytest.fixture(scope="session")
def forgot():
    """Two users, an item and an interaction are forgotten by a method that changes the parameters."""
    torch.manual_seed(0)
    graph = gu.datasets.synthetic_interactions(num_users=40, num_items=25, interactions_per_user=7, seed=0)
    model = torch_geometric.nn.LightGCN(graph.num_nodes, 6, num_layers=2)
    gu.fit(model, graph, epochs=3)
    held = graph.to_frame()
    user, item = next(row for row in held[["user", "item"]].values.tolist() if row[0] not in ("u3", "u5"))
    asked = gu.ForgetRequest("user", ["u3", "u5"]) | gu.ForgetRequest("item", ["i4"])
    request = asked | gu.ForgetRequest("interaction", [(user, item)])
    result = gu.IFRU().unlearn(model, graph, request)
    return SimpleNamespace(model=model, graph=graph, result=result, users={"u3", "u5"}, items={"i4"})


@pytest.fixture(scope="session")
def sessions():
    """An item is forgotten from a session model."""
    torch.manual_seed(0)
    graph = gu.SessionGraph.from_sequences([[(n * k + k) % 12 for n in range(5)] for k in range(1, 30)])
    model = gu.nn.build_model("gru4rec", graph, dim=6)
    result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("item", [graph.item_ids[7]]))
    return SimpleNamespace(model=model, graph=graph, result=result)
