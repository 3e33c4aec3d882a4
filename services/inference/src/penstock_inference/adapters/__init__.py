"""LoRA adapters on an engine: as the routes want them."""
