"""A small real site, and an existing Flask app beside it, assembled by ``stack.toml``."""
