"""K-hop neighbourhoods, and the nodes and interactions that a removal of interactions affects."""

from graphunlearn.utils.importance import prune_by_importance, spread_importance
from graphunlearn.utils.subgraph import (
    affected_interactions,
    affected_nodes,
    k_hop_ball,
    k_hop_subgraph,
    node_map,
    removed_share,
)

__all__ = [
    "affected_interactions",
    "affected_nodes",
    "k_hop_ball",
    "k_hop_subgraph",
    "node_map",
    "prune_by_importance",
    "removed_share",
    "spread_importance",
]
