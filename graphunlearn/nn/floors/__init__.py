"""Recommenders that count or solve instead of training: what a trained model should beat."""

from graphunlearn.nn.floors.als import ALS
from graphunlearn.nn.floors.base import Floor
from graphunlearn.nn.floors.ease import EASE
from graphunlearn.nn.floors.markov import Markov
from graphunlearn.nn.floors.measuring import default_floors, floor_metrics, measure_floor
from graphunlearn.nn.floors.neighbours import ItemKNN, SessionKNN
from graphunlearn.nn.floors.popularity import PopularItems, Popularity

__all__ = [
    "ALS",
    "EASE",
    "Floor",
    "ItemKNN",
    "Markov",
    "PopularItems",
    "Popularity",
    "SessionKNN",
    "default_floors",
    "floor_metrics",
    "measure_floor",
]
