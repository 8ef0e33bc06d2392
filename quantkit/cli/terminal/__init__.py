"""The terminal: what commands print, tables of models, and progress bars."""
