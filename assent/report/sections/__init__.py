"""Sections of the report: each is a class in NAME.py and its template NAME.html.jinja; a new pair is a new section."""
