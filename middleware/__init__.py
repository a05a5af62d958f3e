"""The layers: one module each, ``lamella.middleware.<name>``. Importing one imports no other."""
