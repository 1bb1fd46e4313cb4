"""Render the prompts from Jinja templates and parse the replies."""
