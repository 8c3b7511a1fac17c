"""What only lesson 11 needs."""
