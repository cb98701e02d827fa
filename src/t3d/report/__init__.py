"""Tables, plots and the page of results."""
