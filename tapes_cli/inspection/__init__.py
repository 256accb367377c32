"""What is in the database, worked out for whoever asks: returns data, prints nothing."""
