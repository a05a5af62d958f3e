"""StaticMiddleware."""
