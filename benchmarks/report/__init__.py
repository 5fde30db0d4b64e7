"""The report: one HTML file made from journals."""
