"""What a layer may import from lamella: keys, environ, response, HTTP grammar, paths, options, errors.

Nothing here imports a layer, an app, the loader or a server.
"""
