"""Sessions of clicks as files, and graphs of them as lists."""

import torch


def walks(num_sessions, num_items=20, seed=0):
    """Lists of items that mostly go on to the next one, sometimes stay, and sometimes jump."""
    generator = torch.Generator().manual_seed(seed)
    sessions = []
    for _ in range(num_sessions):
        item, *steps = torch.randint(
            num_items, (int(torch.randint(2, 9, (1,), generator=generator)),), generator=generator
        )
        session = [int(item)]
        for step in steps:
            chance = float(torch.rand((), generator=generator))
            session.append(int(step) if chance > 0.85 else (session[-1] + (chance > 0.1)) % num_items)
        sessions.append(session)
    return sessions


def rows_of(sessions, start=0):
    """Rows of session, item and time: sessions one after the other, a click every ten seconds."""
    rows, time = [], 1000 + 1000 * start
    for number, session in enumerate(sessions, start):
        for item in session:
            rows.append((f"s{number}", f"i{item}", time))
            time += 10
    return rows


def write_rows(path, rows, header="session,item,time"):
    """Write rows as a file."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def as_lists(graph):
    """Raw ids of the items of every session, by its raw id."""
    items = [graph.item_ids[item] for item in graph.items.tolist()]
    parts = torch.arange(len(items)).split(graph.length.tolist())
    return {name: [items[k] for k in part] for name, part in zip(graph.session_ids, parts)}


def named(sessions, start=0):
    return {f"s{number}": [f"i{item}" for item in session] for number, session in enumerate(sessions, start)}
