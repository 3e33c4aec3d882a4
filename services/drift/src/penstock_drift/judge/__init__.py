"""All evidence, judged together tick by tick. Pure."""
