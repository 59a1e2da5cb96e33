"""Reports of audits: verdict, tables, figures and the web page."""

from graphunlearn.eval.report.writing import aggregate, terminal_table, write_report

__all__ = ["aggregate", "terminal_table", "write_report"]
