"""RecBole's recommenders of the next click: SRGNN, GRU4Rec and SASRec."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.adapters.recbole.loaders import named_nodes, rebuilt
from graphunlearn.adapters.recbole.session_rows import Clicks, kept_clicks, windows
from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, _check_sessions, encode
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.tables import item_tables

__all__ = ["MODELS", "RecBoleSessions", "retained_loaders", "session_graphs"]

MODELS = ("SRGNN", "GRU4Rec", "SASRec")
CHUNK = 1024  # histories read at a time, which bounds the memory at that times the square of the longest


class RecBoleSessions(nn.Module):
    r"""A session recommender that computes what a RecBole module computes, with a copy of it inside.

    RecBole reads the last ``MAX_ITEM_LIST_LENGTH`` clicks of a session, filled up with the item 0, which is none; item
    :math:`i` of this package is its item :math:`i + 1`. The scores

    .. math::
        \langle \mathrm{forward}(v_1, \dots, v_t),\, e_i \rangle

    of all real items are those of its ``full_sort_predict``. Histories are filled up to the longest of a batch alone:
    what is behind a session takes no part in any of the three models.

    RecBole's cross entropy has the row of item 0 in its softmax, as a click that never comes; the probabilities here,
    and so the losses, are those of the real items alone. That row makes no difference and is not trained here.

    Args:
        module: RecBole's SRGNN, GRU4Rec or SASRec, trained with cross entropy; it is copied.

    Raises:
        TypeError: It is another model.
        ValueError: It is trained with another loss.

    Example:
        >>> import graphunlearn as gu
        >>> model = RecBoleSessions(trained)  # doctest: +SKIP
        >>> gu.CAU(validation=validation).unlearn(model, graph, request)  # doctest: +SKIP
    """

    module: Any

    def __init__(self, module: Any) -> None:
        name = type(module).__name__
        if name not in MODELS or not type(module).__module__.startswith("recbole."):
            raise TypeError(
                f"'module' must be one of RecBole's {', '.join(MODELS)} (got {type(module).__module__}.{name})"
            )
        if module.loss_type != "CE":
            raise ArgumentError(
                "module",
                "be trained with cross entropy, loss_type='CE'",
                f"'{module.loss_type}'",
                "the probability of a click is that of its softmax",
            )
        super().__init__()
        self.module = copy.deepcopy(module)
        self.num_items, self.max_length = int(module.n_items) - 1, int(module.max_seq_length)

    def extra_repr(self) -> str:
        """Return what tells one training of the model from another."""
        return f"{type(self.module).__name__}, {self.num_items}, max_length={self.max_length}"

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as RecBole does."""
        for part in self.module.modules():
            if isinstance(part, (nn.Embedding, nn.GRU, nn.LayerNorm, nn.Linear)):
                part.reset_parameters()  # what RecBole leaves as PyTorch drew it
        if hasattr(self.module, "_reset_parameters"):
            self.module._reset_parameters()
        else:
            self.module.apply(self.module._init_weights)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return a row per history ``[num, dim]``.

        Args:
            item_seq: RecBole's ids of the items of each history, zeros behind them ``[num, longest]``.
            item_seq_len: Clicks of each history ``[num]``.
        """
        self.module.device = item_seq.device  # what SRGNN's matrices are made on; the module may have been moved
        states: Tensor = self.module(item_seq, item_seq_len)
        return states

    def restored(self, original: nn.Module) -> nn.Module:
        """Return a copy of ``original``, a RecBole module, with the parameters of this one."""
        after = copy.deepcopy(original)
        after.load_state_dict(self.module.state_dict())
        return after


@encode_prefixes.register
def _(model: RecBoleSessions, graph: SessionGraph, ends: Tensor) -> Encoded:
    _check_sessions(model.num_items, model, graph)
    table = model.module.item_embedding.weight
    states = [table.new_zeros(0, table.size(1))]
    session = torch.searchsorted(graph.click_ptr, ends, right=True) - 1
    lengths = (ends - graph.click_ptr[session] + 1).clamp(max=model.max_length)
    items = graph.items + 1
    for end, length in zip(ends.split(CHUNK), lengths.split(CHUNK)):
        if end.numel():
            states.append(model(windows(items, end, length, int(length.max())), length))
    return Encoded(torch.cat(states), table[1:])


@encode.register
def _(model: RecBoleSessions, graph: SessionGraph) -> Encoded:
    return encode_prefixes(model, graph, graph.click_ptr[1:] - 1)


@item_tables.register
def _(model: RecBoleSessions, num_items: int) -> list[Tensor]:
    table = model.module.item_embedding.weight
    return [table.detach()[1:].requires_grad_(table.requires_grad)]  # a view: what is written there is the model's


def session_graphs(
    train: Any, valid: Any = None, test: Any = None
) -> tuple[SessionGraph, SessionGraph | None, SessionGraph | None]:
    """Return the training sequences of RecBole data loaders as sessions, and what is held out as prefixes.

    The rows of a sequential data set are histories of at most ``MAX_ITEM_LIST_LENGTH`` clicks with the click that
    follows; the sequences are put together from them, whatever their length. One whose rows are all held out is not
    among the training sessions. A session's raw id is the token of RecBole's ``USER_ID_FIELD``, which it also has as
    its user; an item's raw id is its token. Times are taken over as RecBole holds them, in single precision.

    RecBole holds out the last clicks of a sequence, whose history was trained on: as a session of its own it would have
    clicks to predict that the model has learned. The held-out graphs are therefore graphs of prefixes, one for every
    held-out row, whose ``target`` is the one click that is predicted; what this package learns from validation sessions
    or measures on them is then of held-out clicks alone. The raw id of such a prefix is the token of its sequence
    and the number of the row (``"u7:3"``), its user that token.

    Args:
        train: The loader of the training data, as ``recbole.data.data_preparation`` returns it.
        valid: Likewise of the validation data, if there are any.
        test: Likewise of the test data.

    Returns:
        Training sessions, validation prefixes, test prefixes; ``None`` where there are no rows.

    Raises:
        ValueError: The rows are not those of whole sequences, as where a benchmark's files are read as they are.
    """
    clicks = Clicks.of([loader._dataset for loader in (train, valid, test) if loader is not None])
    dataset = train._dataset
    in_training = clicks.part == 0
    length = torch.bincount(clicks.sequence[in_training], minlength=clicks.uid.numel())
    tokens = _tokens(dataset, dataset.uid_field, clicks.uid[length > 0])
    items = _tokens(dataset, dataset.iid_field, torch.arange(1, dataset.item_num))
    graph = SessionGraph.from_sequences(
        clicks.item[in_training] - 1,
        torch.cat([length.new_zeros(1), length[length > 0].cumsum(0)]),
        item_ids=items,
        session_ids=tokens,
        time=_time(clicks, in_training),
        user=torch.arange(len(tokens)),
        user_ids=tokens,
    )
    return graph, _prefixes(valid, graph), _prefixes(test, graph)


def _tokens(dataset: Any, field: str, numbers: Tensor) -> list[str]:
    return [str(token) for token in dataset.id2token(field, numbers.numpy())]


def _time(clicks: Clicks, which: Tensor) -> Tensor | None:
    dataset = clicks.datasets[0]
    field, columns = dataset.time_field, dataset.inter_feat.columns
    if field is None or not {field, f"{field}{dataset.config['LIST_SUFFIX']}"} <= set(columns):
        return None
    return clicks.values(field)[which].double()


def _prefixes(loader: Any, train: SessionGraph) -> SessionGraph | None:
    """Return the rows of a loader as prefixes with targets."""
    if loader is None or not len(loader._dataset):
        return None
    dataset = loader._dataset
    rows, suffix = dataset.inter_feat, dataset.config["LIST_SUFFIX"]
    histories, length = rows[f"{dataset.iid_field}{suffix}"], rows[dataset.item_list_length_field]
    uid, user = torch.unique(rows[dataset.uid_field], return_inverse=True)
    tokens = _tokens(dataset, dataset.uid_field, uid)
    return SessionGraph._build(
        histories[histories > 0] - 1,
        length,
        train.vocabulary("item"),
        Vocabulary(f"{tokens[number]}:{row}" for row, number in enumerate(user.tolist())),
        Vocabulary(tokens),
        user=user,
        target=rows[dataset.iid_field] - 1,
    )


def retained_loaders(
    train: Any,
    valid: Any,
    test: Any,
    graph: SessionGraph,
    retained: SessionGraph,
    request: ForgetRequest | None = None,
) -> tuple[tuple[Any, Any, Any], int]:
    """Return RecBole loaders of what remains, and how many held-out rows are gone.

    All rows are made anew of the sequences without what was forgotten: the neighbours of a forgotten click join, in
    histories as well, and RecBole's augmentation of the retained sequences would give the same rows. Forgotten are

    - the training clicks of ``graph`` that ``retained`` does not hold;
    - a sequence that retains no training click, with all that is held out of it;
    - held-out clicks on an item that the training part of their sequence held and does not any more;
    - held-out clicks on an item that the training data held and do not any more, or that ``request`` names.

    None of these is in a history or to be predicted, and a row without a history is none. Loaders are of the class,
    the configuration, the batch size and the samplers of the original ones, which stay as they are.

    Args:
        train: The loader that ``graph`` was made from with :func:`session_graphs`.
        valid: Likewise of the validation data, or ``None``.
        test: Likewise of the test data.
        graph: The training sessions before.
        retained: The training sessions after, cut from ``graph``.
        request: What was asked for, which may name items that are held out alone.

    Returns:
        The three loaders, ``None`` where there was none or no row is left; and how many rows the held-out ones lack.

    Raises:
        ValueError: ``graph`` is not that of ``train``, or ``retained`` is not cut from it.
    """
    from recbole.data.interaction import Interaction

    loaders = (train, valid, test)
    clicks = Clicks.of([loader._dataset for loader in loaders if loader is not None])
    graph, retained = copy.copy(graph).cpu(), copy.copy(retained).cpu()  # PyTorch Geometric moves in place
    in_training = clicks.part == 0
    if not torch.equal(clicks.item[in_training] - 1, graph.items):
        raise ArgumentError("graph", "be the training sessions of 'train'", "others")
    kept = kept_clicks(graph, retained)
    forgotten = torch.zeros_like(in_training)
    forgotten[in_training] = ~kept
    emptied = graph.emptied(retained)
    if request is not None:
        emptied[named_nodes(request, "item", graph)] = True
    forgotten |= emptied[clicks.item - 1] & ~in_training
    sequence = clicks.sequence
    pair, count = sequence * graph.num_items + clicks.item - 1, clicks.uid.numel()
    gone, left = (pair[in_training][part] for part in (~kept, kept))
    forgotten |= torch.isin(pair, gone[~torch.isin(gone, left)]) & ~in_training
    lost = torch.bincount(sequence[in_training], minlength=count) > 0
    lost &= torch.bincount(sequence[in_training & ~forgotten], minlength=count) == 0
    forgotten |= lost[sequence]
    columns = clicks.rows_without(forgotten)
    datasets = tuple(dataset.copy(Interaction(new)) for dataset, new in zip(clicks.datasets, columns))
    dropped = sum(len(old) - len(new) for old, new in zip(clicks.datasets[1:], datasets[1:]))
    first, second, third = rebuilt(loaders, datasets)
    return (first, second, third), dropped
