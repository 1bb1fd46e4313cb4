"""Examine a machine, a recipe and what both lean on, before anything is started or spent."""
