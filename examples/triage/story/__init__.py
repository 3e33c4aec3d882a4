"""The whole loop as a story: tickets drift, and a better model comes to answer them."""
