"""What we say to a model: Jinja templates, and the one module that renders them."""
