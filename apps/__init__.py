"""What layers wrap: the router, the ASGI bridge, the demo."""
