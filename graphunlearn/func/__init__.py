"""Numerics that know nothing of models, requests or files: sparse products, curvature, solvers."""

from graphunlearn.func.sparse import Adjacency, PairPattern, csr, spmm

__all__ = ["Adjacency", "PairPattern", "csr", "spmm"]
