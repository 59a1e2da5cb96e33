"""What a user has: a module with models of its own, a training loop of its own, weights, and files of ids and data.

Nothing of this package is used to train. Rows of users are in the reverse order of their names, and one user and one
item have no interaction.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

MODULE = '''
import torch
from torch import nn


class TwoTower(nn.Module):
    """Two towers; the items' one averages over the users of an item. Its ``scale`` is reset by no method."""

    def __init__(self, num_users, num_items, dim=8):
        super().__init__()
        self.user, self.item = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        self.mix = nn.Linear(2 * dim, dim)
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, users, items):
        near = torch.zeros_like(self.item.weight).index_add(0, items, self.user.weight[users])
        degree = torch.bincount(items, minlength=len(near)).clamp(min=1).unsqueeze(1)
        return self.user.weight * self.scale, self.mix(torch.cat([self.item.weight, near / degree], dim=1))


def build(graph, dim=8):
    return TwoTower(graph.num_users, graph.num_items, dim)


def encode(model, graph):
    return model(*graph.pairs)


def fit(model, users, items, epochs=60):
    seen = torch.zeros(len(model.user.weight), len(model.item.weight))
    seen[users, items] = 1
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        negatives = torch.multinomial(1 - seen[users], 1).squeeze(1)
        queries, rows = model(users, items)
        margins = (queries[users] * (rows[items] - rows[negatives])).sum(1)
        loss = -nn.functional.logsigmoid(margins).mean() + 1e-3 * queries.square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def train(graph, seed):
    torch.manual_seed(seed)
    return fit(build(graph), *graph.pairs, epochs=15)


class SessionGRU(nn.Module):
    def __init__(self, num_items, dim=8):
        super().__init__()
        self.item, self.gru = nn.Embedding(num_items, dim), nn.GRU(dim, dim, batch_first=True)

    def forward(self, clicks, last):
        states, _ = self.gru(self.item(clicks))
        return states[torch.arange(len(clicks)), last]


def encode_sessions(model, graph):
    """The last state of every session; sessions are padded behind their end."""
    length, start = graph.length, graph.click_ptr[:-1]
    step = torch.arange(int(length.max()) if len(length) else 1)
    place = torch.minimum(start[:, None] + step, (start + length - 1)[:, None])
    return model(graph.items[place], length - 1), model.item.weight


class Keeper(TwoTower):
    """Keeps the interactions that it was built for."""

    def __init__(self, graph, persistent):
        super().__init__(graph.num_users, graph.num_items)
        self.register_buffer("pairs", graph.pairs, persistent=persistent)


class Popular(TwoTower):
    """Draws its parameters by popularity."""

    def __init__(self, graph):
        super().__init__(graph.num_users, graph.num_items)
        self.item.weight.data *= torch.bincount(graph.pairs[1], minlength=graph.num_items).unsqueeze(1) + 1


class Storer(Keeper):
    pass


def keeping(graph):
    return Keeper(graph, persistent=False)


def storing(graph):
    return Storer(graph, persistent=True)


def encode_stored(model, graph):
    return model(*graph.pairs)


def encode_kept(model, graph):
    return model(*model.pairs)


number = 3


def broken(graph):
    raise KeyError("no such table")


def no_model(graph):
    return {"user": graph.num_users}


def wide(model, graph):
    users, items = encode(model, graph)
    return users, torch.cat([items, items], dim=1)


def short(model, graph):
    users, items = encode(model, graph)
    return users[1:], items


def single(model, graph):
    return model.user.weight.sum()


def three_words(model, graph):
    return "users", "items"


def detached(model, graph):
    return tuple(rows.detach() for rows in encode(model, graph))


def infinite(model, graph):
    users, items = encode(model, graph)
    return users / 0, items


def failing(model, graph):
    return model.towers(graph)


def of_half_the_users(graph, seed):
    return TwoTower(graph.num_users // 2, graph.num_items)


def nothing(graph, seed):
    return None


def failing_training(graph, seed):
    raise RuntimeError("out of cards")
'''


def write_module(folder: Path, name: str, text: str = MODULE):
    """Write a module and return it, imported under another name."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(f"written_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_csv(path: Path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def make_project(folder: Path, name: str) -> dict[str, Path]:
    """Write the project of a user of two towers, and return its files."""
    towers = write_module(folder, name)
    generator = torch.Generator().manual_seed(5)
    tastes = torch.randn(40, 3, generator=generator) @ torch.randn(3, 24, generator=generator)
    chosen = torch.multinomial(tastes.softmax(1), 9, generator=generator)
    users = torch.arange(40).repeat_interleave(9)
    order = torch.randperm(360, generator=generator)
    rows = [(f"u{39 - u}", f"i{i}") for u, i in torch.stack([users, chosen.flatten()])[:, order].t().tolist()]
    data, test = rows[40:], rows[:40]
    names = {
        "users": [f"u{n}" for n in reversed(range(40))] + ["u-new"],
        "items": [f"i{n}" for n in range(24)] + ["i-new"],
    }
    pairs = torch.tensor([[names["users"].index(u), names["items"].index(i)] for u, i in data]).t()
    torch.manual_seed(1)
    model = towers.fit(towers.TwoTower(41, 25), *pairs)
    save_file(model.state_dict(), folder / "towers.safetensors")
    torch.save(model.state_dict(), folder / "towers.pt")
    (folder / "users.txt").write_text("\n".join(names["users"]) + "\n")
    files = {"data": write_csv(folder / "train.csv", ("user", "item"), data)}
    files["test"] = write_csv(folder / "test.csv", ("user", "item"), test)
    files["ids-items"] = write_csv(folder / "items.csv", ("title", "item"), [("A", name) for name in names["items"]])
    return files | {"ids-users": folder / "users.txt", "weights": folder / "towers.safetensors"}


def make_sessions(folder: Path, name: str) -> dict[str, Path]:
    """Write the project of a user of sessions, and return its files."""
    module = write_module(folder, name)
    generator = torch.Generator().manual_seed(7)
    starts = torch.randint(12, (60,), generator=generator).tolist()
    lists = [[(start + step) % 12 for step in range(3 + start % 3)] for start in starts]
    rows = [(f"s{n}", f"i{item}", 10 * n + k) for n, session in enumerate(lists) for k, item in enumerate(session)]
    cut = next(k for k, row in enumerate(rows) if row[0] == "s48")
    torch.manual_seed(2)
    model = module.SessionGRU(13)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = torch.zeros(())
        for session in lists[:48]:
            clicks = torch.tensor(session)
            states, _ = model.gru(model.item(clicks[:-1])[None])
            loss = loss + torch.nn.functional.cross_entropy(states[0] @ model.item.weight.t(), clicks[1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_file(model.state_dict(), folder / "gru.safetensors")
    header = ("session", "item", "time")
    files = {"data": write_csv(folder / "clicks.csv", header, rows[:cut])}
    files["test"] = write_csv(folder / "later.csv", header, rows[cut:])
    (folder / "items.txt").write_text("".join(f"i{n}\n" for n in range(13)))
    return files | {"ids-items": folder / "items.txt", "weights": folder / "gru.safetensors"}


def words_of(files: dict[str, Path], *more, **changed):
    """The options of the files, with some changed or, where they are None, left out."""
    options = {**files, **{name.replace("_", "-"): value for name, value in changed.items()}}
    named = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return [*named, *map(str, more)]


def facts_of(folder: Path):
    return json.loads((folder / "run.json").read_text())
