"""What only lesson 09 needs."""
