"""What came out of a sweep: leaderboard, statistics, verdict, and the ways to print them.

``build.build_report(record, store)`` makes the report; ``text.render_text``,
``tables.to_markdown``, ``tables.to_csv`` and ``html.to_html`` (the only one that imports plotly)
show it, ``Report.to_json`` is the document of ``--json``. Nothing is imported here: the CLI borrows
``naming`` and must start in a blink.
"""
