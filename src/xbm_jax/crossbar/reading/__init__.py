"""What columns, converters and digital accumulation make of an input."""
