"""Numerical methods for tensors, independent of models and graphs: sparse products, curvature products, solvers."""

from graphunlearn.func.adjacency import Adjacency
from graphunlearn.func.column_blocks import keep_factors, multiply
from graphunlearn.func.compressed import csr
from graphunlearn.func.hessian import Linearised, Product, gauss_newton_product, hessian_product
from graphunlearn.func.min_norm import MinNorm, gram_matrix, min_norm_point, min_norm_weights
from graphunlearn.func.solve import KrylovSpace, Solution, conjugate_gradients, lanczos, largest_eigenvalue, lissa
from graphunlearn.func.sparse import PairPattern, spmm

__all__ = [
    "Adjacency",
    "KrylovSpace",
    "Linearised",
    "MinNorm",
    "PairPattern",
    "Product",
    "Solution",
    "conjugate_gradients",
    "csr",
    "gauss_newton_product",
    "gram_matrix",
    "hessian_product",
    "keep_factors",
    "lanczos",
    "largest_eigenvalue",
    "lissa",
    "min_norm_point",
    "min_norm_weights",
    "multiply",
    "spmm",
]
