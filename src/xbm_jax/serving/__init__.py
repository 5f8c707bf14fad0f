"""One chip, many tasks: a server that answers batches in which every image may belong to another task."""

from xbm_jax.serving.server import Server, serve

__all__ = ["Server", "serve"]
