"""What this instance knows of requests under way, and who waits for them."""
