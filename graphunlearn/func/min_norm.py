"""The point of smallest norm in the convex hull of a few vectors, computed from their inner products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import inf
from operator import mul, truediv
from typing import NamedTuple

import torch
from torch import Tensor

from graphunlearn.errors import ArgumentError

__all__ = ["MinNorm", "gram_matrix", "min_norm_point", "min_norm_weights"]

BLOCK = 1 << 15  # entries of every vector that are converted to float64 at once

ENUMERATED = 3  # largest number of vectors for which all faces of the simplex are tried
ROUNDING = 64 * torch.finfo(torch.float64).eps
SAME = 4 * torch.finfo(torch.float64).eps  # smaller relative differences are rounding errors
TINY = torch.finfo(torch.float64).tiny

Rows = list[list[float]]  # the matrices are so small that lists are faster than tensors


class MinNorm(NamedTuple):
    r"""A point :math:`x = \sum_i a_i g_i` of a convex hull, and a bound of its distance to the solution.

    Args:
        weights: The weights :math:`a`, which are not negative and add up to 1 ``[k]``.
        squared_norm: The squared norm :math:`\|x\|^2`.
        gap: The duality gap :math:`(\|x\|^2 - \min_i \langle x, g_i\rangle) / \max_i \|g_i\|^2`. It is 0 at the
            solution :math:`x^\star`, and at least :math:`\|x - x^\star\|^2 / \max_i \|g_i\|^2` at every point.
    """

    weights: Tensor
    squared_norm: float
    gap: float


def gram_matrix(vectors: Sequence[Sequence[Tensor]]) -> Tensor:
    r"""Return the inner products :math:`\langle g_i, g_j\rangle` of vectors that consist of several tensors.

    They are computed in float64, block by block, so that no vector is copied as a whole.

    Args:
        vectors: The :math:`k` vectors, each as a list of tensors, such as one gradient per parameter. Tensors at the
            same place have the same shape.

    Returns:
        The Gram matrix ``[k, k]``, in float64, on the CPU.

    Raises:
        ValueError: There are no vectors, or their shapes differ.

    Example:
        >>> import torch
        >>> gram_matrix([[torch.ones(2), torch.ones(1, 3)], [torch.zeros(2), torch.ones(1, 3)]])
        tensor([[5., 3.],
                [3., 3.]], dtype=torch.float64)
    """
    shapes = sorted({tuple(tuple(part.shape) for part in vector) for vector in vectors})
    if len(shapes) != 1 or not shapes[0]:
        raise ArgumentError("vectors", "be one or more vectors of one shape", shapes or "none")
    first = vectors[0][0]
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=first.device)
    for parts in zip(*vectors):
        for blocks in zip(*(part.detach().reshape(-1).split(BLOCK) for part in parts)):
            rows = torch.stack(blocks).double()
            total.addmm_(rows, rows.t())
    return total.cpu()


def min_norm_weights(vectors: Tensor | Sequence[Tensor]) -> Tensor:
    r"""Return :math:`\arg\min_a \|\sum_i a_i g_i\|^2` with :math:`a \ge 0, \sum_i a_i = 1`; see :func:`min_norm_point`.

    Args:
        vectors: The Gram matrix :math:`\langle g_i, g_j\rangle` as one tensor ``[k, k]``, or a list of the :math:`k`
            vectors, all of the same shape.

    Returns:
        The weights ``[k]``, with the dtype (float64 for integers) and device of the vectors.

    Raises:
        ValueError: There are no vectors, their shapes differ, or the tensor is not a finite Gram matrix.

    Example:
        >>> import torch
        >>> min_norm_weights([torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])])
        tensor([0.2000, 0.8000])
    """
    return min_norm_point(vectors).weights


def min_norm_point(vectors: Tensor | Sequence[Tensor]) -> MinNorm:
    r"""Return the point of smallest norm in the convex hull of :math:`g_1, \dots, g_k`.

    If the vectors are the gradients of several objectives, the negative of the point is a descent direction of all of
    them. If the point is zero, there is no such direction.

    For up to three vectors, the smallest point of every face of the simplex is computed, and the point that satisfies
    the optimality conditions is returned. For more vectors, Wolfe's algorithm goes from face to face. It terminates
    because the norm decreases with every face. All computations are in float64, and all tolerances are relative to
    the rounding errors of the Gram matrix. Therefore the vectors may have any scale, and may be zero, parallel or
    opposite. If several weights give the same point, the weights of the smallest face are returned, and of several
    such faces the first one.

    Args:
        vectors: The Gram matrix :math:`\langle g_i, g_j\rangle` as one tensor ``[k, k]``, or a list of the :math:`k`
            vectors, all of the same shape.

    Returns:
        The point; its weights have the dtype (float64 for integers) and device of the vectors.

    Raises:
        ValueError: There are no vectors, their shapes differ, or the tensor is not a finite Gram matrix.

    Source: Wolfe, "Finding the nearest point in a polytope", Mathematical Programming 11, 1976; Désidéri,
    "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Acad. Sci. Paris 350, 2012.

    Example:
        >>> import torch
        >>> min_norm_point(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))  # opposite vectors
        MinNorm(weights=tensor([0.5000, 0.5000]), squared_norm=0.0, gap=0.0)
    """
    like, gram = _gram(vectors)
    if not bool(torch.isfinite(gram).all()):
        raise ArgumentError("vectors", "have finite inner products", "NaN or infinity")
    scale = float(gram.diagonal().max())
    if (least := float(gram.diagonal().min())) < 0:
        raise ArgumentError("vectors", "have squared norms on the diagonal", f"{least:g}")
    apart = (gram - gram.t()).triu()
    if float(apart.abs().max()) > 1e-4 * scale:
        i, j = divmod(int(apart.abs().argmax()), len(gram))
        raise ArgumentError("vectors", "be a symmetric matrix", f"[{i}, {j}] and [{j}, {i}] {apart[i, j]:g} apart")
    if scale > 0:  # after scaling, squares neither overflow nor underflow
        gram = gram / scale
        gram = (gram + gram.t()) / 2
    rows: Rows = gram.tolist()
    weights = (_enumerate if len(rows) <= ENUMERATED else _walk)(rows)
    product = [_dot(row, weights) for row in rows]
    squared = _dot(product, weights)
    total = torch.tensor(weights, dtype=like.dtype, device=like.device)
    return MinNorm(total, max(0.0, squared) * scale, max(0.0, squared - min(product)))


def _gram(vectors: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a tensor with the dtype and device of the result, and the Gram matrix in float64."""
    if isinstance(vectors, Tensor):
        if vectors.dim() != 2 or vectors.size(0) != vectors.size(1) or not len(vectors):
            raise ArgumentError("vectors", "be a Gram matrix [k, k] or a list", f"a tensor {list(vectors.shape)}")
        return vectors if vectors.is_floating_point() else vectors.double(), vectors.detach().cpu().double()
    shapes = sorted({tuple(vector.shape) for vector in vectors})
    if len(shapes) != 1:
        raise ArgumentError("vectors", "be one or more tensors of one shape", shapes or "none")
    like = vectors[0] if vectors[0].is_floating_point() else vectors[0].double()
    return like, gram_matrix([[vector] for vector in vectors])


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(mul, a, b))


def _violation(gram: Rows, weights: list[float]) -> list[tuple[float, float]]:
    """Return for every vector the violation of the optimality condition, and a bound of its rounding error."""
    product = [_dot(row, weights) for row in gram]
    size = [sum(abs(entry) * weight for entry, weight in zip(row, weights)) for row in gram]
    squared, rounding = _dot(product, weights), _dot(size, weights)
    return [(squared - p, ROUNDING * (rounding + s) + TINY) for p, s in zip(product, size)]


def _affine_minimum(gram: Rows, face: Sequence[int]) -> tuple[list[float], bool]:
    """Return the weights of the smallest point in the affine hull of a face, and whether they are unique.

    If they are not unique, the first result is instead a change of the weights that does not change the point. The
    weights are computed by a Cholesky factorisation of the normalised differences from the shortest vector; with the
    shortest vector as base, cancellation is smallest.
    """
    base = min(face, key=lambda i: gram[i][i])
    rest = [i for i in face if i != base]
    square = gram[base][base]
    length = [gram[i][i] - 2 * gram[i][base] + square for i in rest]
    root = [max(own, 0.0) ** 0.5 for own in length]
    factor: Rows = []
    step: list[float] = []
    unique = True
    for a, i in enumerate(rest):
        row: list[float] = []
        same = length[a] <= SAME * (gram[i][i] + square)  # equal to the shortest vector
        for b in range(0 if same else a):
            entry = (gram[i][rest[b]] - gram[i][base] - gram[base][rest[b]] + square) / (root[a] * root[b])
            row.append((entry - _dot(row, factor[b])) / factor[b][b])
        pivot = 1 - _dot(row, row)
        unique = not same and pivot > SAME
        if not unique:  # the vector lies in the affine hull of the earlier ones
            step = [-root[a] * value for value in row] + [0.0] * (a - len(row))
            break
        step.append(((square - gram[i][base]) / root[a] - _dot(row, step)) / pivot**0.5)
        factor.append([*row, pivot**0.5])
    for a in reversed(range(len(step))):
        step[a] = (step[a] - sum(factor[c][a] * step[c] for c in range(a + 1, len(step)))) / factor[a][a]
    found = dict.fromkeys(face, 0.0) | dict(zip(rest, map(truediv, step, root)))
    if not unique:
        found[rest[len(step)]] = 1.0
    found[base] = float(unique) - sum(found.values())
    return [found[i] for i in face], unique


def _enumerate(gram: Rows) -> list[float]:
    """Return the weights of the face with the smallest violation; of several such faces, the one tried first."""
    best, least = [1.0], inf
    for size in range(1, len(gram) + 1):
        for face in combinations(range(len(gram)), size):
            found, unique = _affine_minimum(gram, face)
            if unique:
                weights = _spread(found, face, len(gram))
                excess = max(1.0, *(wrong / rounding for wrong, rounding in _violation(gram, weights)))
                if excess < least:
                    best, least = weights, excess
    return best


def _walk(gram: Rows) -> list[float]:
    """Return the weights, computed by Wolfe's algorithm."""
    face = [min(range(len(gram)), key=lambda i: gram[i][i])]
    own = [1.0]
    weights = _spread(own, face, len(gram))
    for _ in range(20 * len(gram)):  # in practice, one step per vector is enough
        wrong = _violation(gram, weights)
        entering = max(range(len(gram)), key=lambda i: wrong[i][0] / wrong[i][1])
        if wrong[entering][0] <= wrong[entering][1] or entering in face:
            break
        face, own = [*face, entering], [*own, 0.0]
        while True:
            target, unique = _affine_minimum(gram, face)
            if unique and min(target) > 0:
                break
            along = [t - w for t, w in zip(target, own)] if unique else target
            if not unique and along[-1] < 0:  # the weight of the vector that entered last must grow
                along = [-d for d in along]
            # Go in this direction until a weight is zero, and remove its vector from the face.
            share, leaving = min(
                (w / -d if d < 0 else 0.0, i)
                for i, (w, d) in enumerate(zip(own, along))
                if d < 0 or (unique and target[i] <= 0)
            )
            own = [max(0.0, w + share * d) for w, d in zip(own, along)]
            face, own = face[:leaving] + face[leaving + 1 :], own[:leaving] + own[leaving + 1 :]
        own = target
        weights = _spread(own, face, len(gram))
    return weights


def _spread(values: Sequence[float], face: Sequence[int], size: int) -> list[float]:
    """Return the weights of all vectors, given those of a face; they are not negative and add up to 1."""
    weights = [0.0] * size
    for i, value in zip(face, values):
        weights[i] = max(0.0, value)
    total = sum(weights)
    return [weight / total for weight in weights]
