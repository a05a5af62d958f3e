"""The same site in each toolkit: ``make(folder)`` returns it as a WSGI application; ``scene.py`` says what it does."""
