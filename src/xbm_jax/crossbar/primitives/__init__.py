"""Pure functions over arrays that know no plan: linear maps, converters, quantisation, draws, wires."""
