"""RecBole's session recommenders SRGNN, GRU4Rec and SASRec as models of this package, and back."""

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
CHUNK = 1024  # histories encoded at a time; the memory grows with CHUNK times the square of the longest history


class RecBoleSessions(nn.Module):
    r"""A session recommender that wraps a copy of a RecBole module and computes the same.

    RecBole reads the last ``MAX_ITEM_LIST_LENGTH`` clicks of a session and pads shorter histories with 0; item
    :math:`i` of this package is RecBole's item :math:`i + 1`. The scores

    .. math::
        \langle \mathrm{forward}(v_1, \dots, v_t),\, e_i \rangle

    of all real items equal those of RecBole's ``full_sort_predict``. Histories are padded only to the longest one of a
    batch, since padding behind a session does not affect any of the three models.

    The softmax of RecBole's cross entropy includes the padding item 0, which is never clicked. Here, the probabilities
    and the losses are over the real items only, so the embedding of the padding item has no effect and is not trained.

    Args:
        module: RecBole's SRGNN, GRU4Rec or SASRec, trained with cross entropy; it is copied.

    Attributes:
        module: The copy of the RecBole module.
        num_items: Number of items, without padding.
        max_length: Greatest number of clicks that the module reads.

    Raises:
        TypeError: The module is not one of these RecBole models.
        ValueError: The module is not trained with cross entropy.

    Example:
        >>> import graphunlearn as gu
        >>> model = RecBoleSessions(trained)  # doctest: +SKIP
        >>> gu.CAU(validation=validation).unlearn(model, graph, request)  # doctest: +SKIP
    """

    module: Any

    def __init__(self, module: Any) -> None:
        name = type(module).__name__
        if name not in MODELS or not type(module).__module__.startswith("recbole."):
            got = f"{type(module).__module__}.{name}"
            raise TypeError(f"'module' must be one of RecBole's {', '.join(MODELS)} (got {got})")
        if module.loss_type != "CE":
            expected = "be trained with cross entropy, loss_type='CE'"
            hint = "the probability of a click is that of its softmax"
            raise ArgumentError("module", expected, f"'{module.loss_type}'", hint)
        super().__init__()
        self.module = copy.deepcopy(module)
        self.num_items, self.max_length = int(module.n_items) - 1, int(module.max_seq_length)

    def extra_repr(self) -> str:
        """Return the RecBole class and the sizes of the model."""
        return f"{type(self.module).__name__}, {self.num_items}, max_length={self.max_length}"

    def reset_parameters(self) -> None:
        """Initialise all parameters as RecBole does."""
        for part in self.module.modules():
            if isinstance(part, (nn.Embedding, nn.GRU, nn.LayerNorm, nn.Linear)):
                part.reset_parameters()  # RecBole keeps PyTorch's initial values of some layers
        if hasattr(self.module, "_reset_parameters"):
            self.module._reset_parameters()
        else:
            self.module.apply(self.module._init_weights)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return one embedding per history.

        Args:
            item_seq: RecBole's item ids of each history, padded with zeros at the end ``[num, longest]``.
            item_seq_len: Number of clicks of each history ``[num]``.

        Returns:
            Embeddings ``[num, dim]``.
        """
        self.module.device = item_seq.device  # SRGNN creates its matrices there; the module may have moved
        states: Tensor = self.module(item_seq, item_seq_len)
        return states

    def restored(self, original: nn.Module) -> nn.Module:
        """Return a copy of a RecBole module with the parameters of this model.

        Args:
            original: A RecBole module of the same class and sizes; it is not changed.
        """
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
    return [table.detach()[1:].requires_grad_(table.requires_grad)]  # a view: writing to it changes the model


def session_graphs(
    train: Any, valid: Any = None, test: Any = None
) -> tuple[SessionGraph, SessionGraph | None, SessionGraph | None]:
    """Convert RecBole data loaders to a graph of training sessions and graphs of held-out prefixes.

    Each row of a sequential data set holds a history of at most ``MAX_ITEM_LIST_LENGTH`` clicks and the click that
    follows it. The complete sequences, of any length, are reconstructed from these rows. A sequence whose rows are all
    held out is not a training session. The raw id of a session, and of its user, is the token of RecBole's
    ``USER_ID_FIELD``; the raw id of an item is its token. Times have RecBole's single precision.

    RecBole holds out the last clicks of a sequence, while their history belongs to the training data. A held-out
    session with the whole sequence would therefore contain clicks that the model was trained on. Instead, the held-out
    graphs consist of prefixes, one per held-out row, whose ``target`` is the held-out click, so that training and
    measurements use only held-out clicks as targets. The raw id of a prefix is the token of its sequence and the number
    of the row (``"u7:3"``), and its user is that token.

    Args:
        train: The loader of the training data, as ``recbole.data.data_preparation`` returns it.
        valid: The loader of the validation data, or ``None``.
        test: The loader of the test data, or ``None``.

    Returns:
        Training sessions, validation prefixes and test prefixes; prefixes are ``None`` if there are no rows.

    Raises:
        ValueError: The rows do not form whole sequences, as with benchmark files that RecBole reads without splitting.
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
    """Return the rows of a loader as a graph of prefixes with targets, or ``None`` if there are no rows."""
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
    """Return RecBole loaders of the retained data, and the number of held-out rows that were dropped.

    All rows are built again from the sequences without the forgotten clicks. The neighbours of a forgotten click become
    adjacent, also in histories; RecBole's augmentation of the retained sequences would give the same rows. The
    following clicks are forgotten:

    - training clicks of ``graph`` that ``retained`` does not contain;
    - all clicks, including held-out ones, of a sequence without retained training clicks;
    - held-out clicks on an item whose clicks in the training part of the same sequence were all forgotten;
    - held-out clicks on an item whose training clicks were all forgotten, or that ``request`` names.

    Forgotten clicks occur neither in histories nor as targets, and rows without a history are dropped. The new loaders
    have the class, configuration, batch size and samplers of the original ones, which are not changed.

    Args:
        train: The loader that ``graph`` was made from with :func:`session_graphs`.
        valid: The loader of the validation data, or ``None``.
        test: The loader of the test data, or ``None``.
        graph: The training sessions before forgetting.
        retained: The retained training sessions, a part of ``graph``.
        request: The forget request, which may name items that occur only in held-out data.

    Returns:
        The loaders of training, validation and test data (``None`` where there was no loader or no row is left), and
        the number of held-out rows that were dropped.

    Raises:
        ValueError: ``graph`` does not belong to ``train``, or ``retained`` is not a part of ``graph``.
    """
    from recbole.data.interaction import Interaction

    loaders = (train, valid, test)
    clicks = Clicks.of([loader._dataset for loader in loaders if loader is not None])
    graph, retained = copy.copy(graph).cpu(), copy.copy(retained).cpu()  # copies, since `cpu()` works in place
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
