"""What is measured on requests, responses and feedback. Pure; `catalogue` lists all of it."""
