"""What a run is: pydantic models, one section per file, and how they are read and written."""
