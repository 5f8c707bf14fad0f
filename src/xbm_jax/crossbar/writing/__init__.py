"""A kernel on arrays: its spec, its plan, and the cells that it is written to."""
