"""Give a notebook what it wants: runs that show themselves, rows as tables and data sets, jobs as functions."""
