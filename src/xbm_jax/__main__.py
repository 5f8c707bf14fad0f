"""``python -m xbm_jax`` is the ``xbm`` command."""

from xbm_jax.cli import main

if __name__ == "__main__":
    main()
