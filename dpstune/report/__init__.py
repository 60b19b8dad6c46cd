"""What people see of runs: progress, tables, figures, pages."""
