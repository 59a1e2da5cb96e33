"""A ledger of successive forget requests, and the drift that results from them."""

from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry, PendingRequest
from graphunlearn.ledger.ledger import Ledger

__all__ = ["Drift", "Ledger", "LedgerEntry", "PendingRequest"]
