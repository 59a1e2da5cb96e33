"""An attack on a folder: which pair was forgotten, tried out with all pairs that the folder could have held."""

import hashlib
import hmac
import re

import torch

import graphunlearn as gu


def secrets_in(folder):
    """All that could be the key of a digest: every run of 32 bytes in hexadecimal, and every text, of all files."""
    content = b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    found = {match[0] for match in re.finditer(rb"(?=([0-9a-f]{64}|[0-9a-f]{32}))", content)}
    found |= {match[1] for match in re.finditer(rb"(?=([0-9a-f]{64}))", content)}
    words = set(re.findall(rb"[A-Za-z0-9_.-]{4,}", content))
    return content, {key for key in found | words if key} | {bytes.fromhex(k.decode()) for k in found if len(k) == 64}


def candidates(graph):
    """Every pair that is not in a graph, with the graph that had it as well."""
    held = set(map(tuple, graph.pairs.t().tolist()))
    for user in range(graph.num_users):
        for item in range(graph.num_items):
            if (user, item) not in held:
                pairs = torch.cat([graph.pairs, torch.tensor([[user], [item]])], dim=1)
                ids = {f"{side}_ids": graph.vocabulary(side) for side in ("user", "item")}
                yield (user, item), gu.InteractionGraph.from_edges(pairs, graph.num_users, graph.num_items, **ids)


def recognised(folder, graph):
    """The pairs whose graph a folder confirms, plainly or with any key that it holds.

    Args:
        folder: The folder, without the original.
        graph: The retained graph in it.
    """
    content, keys = secrets_in(folder)
    confirmed = []
    for pair, guess in candidates(graph):
        print_ = guess.fingerprint()
        digests = {print_, hashlib.sha256(print_.encode()).hexdigest()}
        digests |= {hmac.new(key, print_.encode(), hashlib.sha256).hexdigest() for key in keys}
        if any(digest.encode() in content or bytes.fromhex(digest) in content for digest in digests):
            confirmed.append(pair)
    return confirmed
