"""A job's life: its states, its stages, where it is kept and how its routes leave."""
