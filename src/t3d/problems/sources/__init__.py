"""Training problems: data sets as they were published, made into a file of prompts."""
