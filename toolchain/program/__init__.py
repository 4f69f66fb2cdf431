"""The two immutable programs: float (what was trained) and integer (what runs on hardware)."""
