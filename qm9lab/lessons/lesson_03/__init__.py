"""What only lesson 03 needs."""
