"""What a device does to the conductance it was asked to hold: laws, published fits, tables, curves."""
