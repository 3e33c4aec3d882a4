"""Whether models answer: asked now and then, told to the doors and to people."""
