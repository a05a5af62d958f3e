"""ConditionalMiddleware."""
