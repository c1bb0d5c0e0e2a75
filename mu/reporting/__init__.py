"""The parts of `mu.report`: finding runs, gaps, summaries, tables, figures, the page."""
