"""Named arrays and JSON on disk; the one place that knows Orbax."""
