"""How many engines there are, and which; what decides it."""
