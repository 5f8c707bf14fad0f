"""What one event costs: named numbers with their sources, and the models that make a conversion's cost of them."""
