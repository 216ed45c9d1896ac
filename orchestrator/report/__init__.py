"""What came out of a sweep: leaderboard, statistics, verdict, and the ways to print them.

``build_report(record, store)`` makes the report; ``render_text``, ``to_markdown``, ``to_csv`` and
``html.to_html`` (which imports plotly) show it, ``Report.to_json`` is the document of ``--json``.
"""

from orchestrator.report.build import build_report
from orchestrator.report.document import Report
from orchestrator.report.parts import Verdict
from orchestrator.report.tables import to_csv, to_markdown
from orchestrator.report.text import render_text

__all__ = ["Report", "Verdict", "build_report", "render_text", "to_csv", "to_markdown"]
