"""What is looked for and what is done about it: the document, its versions, its commands."""
