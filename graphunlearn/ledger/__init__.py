"""Requests one after another: a record that loses none, and the drift that they add up to."""

from graphunlearn.ledger.drift import Drift
from graphunlearn.ledger.entry import LedgerEntry, PendingRequest
from graphunlearn.ledger.ledger import Ledger

__all__ = ["Drift", "Ledger", "LedgerEntry", "PendingRequest"]
