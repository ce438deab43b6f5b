"""What happened, on one page: report.html for people, summary.json for programs, a table for the terminal."""

from assent.report.page import Report

__all__ = ["Report"]
