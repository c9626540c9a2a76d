"""How long candidates take on a device: honest timing, tables of it, and prediction from them."""
