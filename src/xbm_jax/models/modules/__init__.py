"""What of Flax's own modules a chip knows: kinds of layers, their forms on arrays, and Linen's as NNX's."""
