"""What a run is made of, as typed records, and how they are read from files."""
