"""Studies: runs, searches, reports."""
