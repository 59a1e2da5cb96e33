"""Published unlearning methods of others, small and on shared parts, for comparison."""

from graphunlearn.operators.published.alteraser import AltEraser
from graphunlearn.operators.published.certified import CEU, IDEA
from graphunlearn.operators.published.cova import COVA
from graphunlearn.operators.published.gif import GIF
from graphunlearn.operators.published.gnndelete import GNNDelete
from graphunlearn.operators.published.scif import SCIF

__all__ = ["CEU", "COVA", "GIF", "IDEA", "SCIF", "AltEraser", "GNNDelete"]
