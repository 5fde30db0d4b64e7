"""The report: one self-contained HTML file made from journals and other results."""
