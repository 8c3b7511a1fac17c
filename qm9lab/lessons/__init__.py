"""A room for each lesson: its checks, its pictures, its widget, and what only it needs."""
