"""Self-contained HTML pages: reports of evaluations, searches and drills."""
