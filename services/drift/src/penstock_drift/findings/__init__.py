"""What is found: a signal's states, events, incidents, and what may have caused them."""
