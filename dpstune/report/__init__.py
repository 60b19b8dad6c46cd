"""How runs are shown to people: progress, tables, figures, pages."""
